"""What ``import gpunet`` costs beside other imports: python benchmarks/import_time.py

Fresh interpreters in turns; the time of one that imports nothing is subtracted.
"""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from statistics import median

from environment import as_installed, parse, parser, write

CODE = {
    "python": "pass",
    "gpunet": "import gpunet",
    "gpunet, device opened": "import gpunet; gpunet.device('cpu')",
    "numpy": "import numpy",
    "torch": "import torch",
    "jax": "import jax",
    "sklearn": "import sklearn.neural_network",
    "thinc": "import thinc.api",
}


def seconds(code: str) -> float:
    start = time.perf_counter()
    command = [sys.executable, "-P", "-c", code]  # -P: the installed gpunet, not the folder's
    subprocess.run(command, env=as_installed(), check=True)
    return time.perf_counter() - start


def main() -> None:
    options = parse(parser("Import times.", rounds=15))
    codes = {name: code for name, code in CODE.items() if find_spec(name.partition(",")[0]) or name == "python"}
    for code in codes.values():
        seconds(code)  # compiles bytecode, fills the file cache
    times: dict[str, list[float]] = {name: [] for name in codes}
    for _ in range(options.rounds):
        for name, code in codes.items():
            times[name].append(seconds(code))
    bare, rows = times.pop("python"), []
    for name, t in times.items():
        rows.append({"name": name, "min": min(t) - min(bare), "median": median(t) - median(bare)})
        print(f"{name:<24}{rows[-1]['min'] * 1e3:7.0f} ms ({rows[-1]['median'] * 1e3:.0f})")
    write(options, rows)


if __name__ == "__main__":
    main()
