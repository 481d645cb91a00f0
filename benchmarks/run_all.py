"""All benchmarks, one after another: python benchmarks/run_all.py [--quick] [--json benchmarks/results/cpu.json]"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from environment import environment

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results" / "cpu.json"
ONCE = ["--batch", "128", "--peers", "hand", "torch", "sklearn", "thinc"]
PLAN: dict[str, list[str]] = {
    "mlp adam": ["mlp_step.py"],
    "mlp sgd": ["mlp_step.py", "--optimizer", "sgd"],
    "wide": ["mlp_step.py", "--case", "wide"],
    "deep": ["mlp_step.py", "--case", "deep"],
    "regularised": ["mlp_step.py", "--case", "regularised"],
    "once": ["mlp_step.py", *ONCE],
    "inference": ["inference.py"],
    "kernels": ["kernels.py"],
    "choices": ["choices.py"],
    "import time": ["import_time.py"],
    "first step": ["first_step.py"],
    "installed size": ["installed_size.py"],
}
QUICK = ["--rounds", "2"]


def run(name: str, arguments: list[str]) -> dict[str, Any]:
    """The script's options and rows."""
    print(f"== {name}: {' '.join(arguments)}", flush=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, str(FOLDER / arguments[0]), *arguments[1:], "--json", str(result)]
        subprocess.run(command, check=True)
        print(f"   {time.perf_counter() - start:.0f} s", flush=True)
        return {key: value for key, value in json.loads(result.read_text()).items() if key in ("options", "rows")}


def main() -> None:
    parser = argparse.ArgumentParser(description="All benchmarks of the CPU.")
    parser.add_argument("--quick", action="store_true", help="two rounds: do all scripts run? Times mean nothing")
    parser.add_argument("--json", type=Path, help=f"default: {RESULTS.relative_to(FOLDER.parent)}; none with --quick")
    options = parser.parse_args()
    extra = QUICK if options.quick else []
    about = environment()
    results = {name: run(name, [*arguments, *extra]) for name, arguments in PLAN.items()}
    to = options.json or (None if options.quick else RESULTS)
    if to:
        to.parent.mkdir(exist_ok=True)
        to.write_text(json.dumps(about | {"results": results}, indent=1) + "\n")
        print(f"results are in {to}; python benchmarks/table.py prints them as tables")


if __name__ == "__main__":
    main()
