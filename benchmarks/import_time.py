"""What ``import gpunet`` costs beside ``import numpy``: python benchmarks/import_time.py [--runs 15]

Fresh interpreters in turns; the time of one that imports nothing is subtracted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median

CODE = {"python": "pass", "numpy": "import numpy", "gpunet": "import gpunet"}


def seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", code], check=True)  # -P: the installed gpunet, not the folder's
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description="Import time of gpunet beside that of NumPy.")
    parser.add_argument("--runs", type=int, default=21, help="at least 15")
    runs = parser.parse_args().runs
    if runs < 15:
        parser.error("--runs must be at least 15")
    for code in CODE.values():
        seconds(code)  # compiles bytecode, fills the file cache
    times: dict[str, list[float]] = {name: [] for name in CODE}
    for _ in range(runs):
        for name, code in CODE.items():
            times[name].append(seconds(code))
    for label, of in (("minimum", min), ("median", median)):
        bare = of(times["python"])
        numpy, ours = of(times["numpy"]) - bare, of(times["gpunet"]) - bare
        print(
            f"{label:8} python {bare * 1e3:.0f} ms, numpy +{numpy * 1e3:.0f} ms, gpunet +{ours * 1e3:.0f} ms: ", end=""
        )
        print(f"gpunet/numpy {ours / numpy:.2f}")


if __name__ == "__main__":
    main()
