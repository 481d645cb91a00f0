"""What a result depends on: threads, machine, versions; and the options that all scripts share."""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

NAMES = ("gpunet", "numpy", "numba", "torch", "jax", "jaxlib", "scikit-learn", "thinc")
THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def parser(description: str, rounds: int = 21) -> argparse.ArgumentParser:
    """An argument parser with --rounds and --json."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--rounds", type=int, default=rounds, help=f"at least 2; default {rounds}")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    return made


def parse(made: argparse.ArgumentParser) -> argparse.Namespace:
    """The options. With --threads, the script starts again confined to that many threads."""
    options = made.parse_args()
    if options.rounds < 2 or not 1 <= getattr(options, "threads", 1) <= cores():
        made.error(f"--rounds must be at least 2, and --threads from 1 to {cores()}, the cores there are")
    if hasattr(options, "threads"):
        pin_threads(options.threads)
    return options


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pin_threads(count: int) -> None:
    """Confine this script to ``count`` threads, starting it again if need be.

    Thread counts in the environment are read when an array library is imported. What ignores them, such as XLA, counts
    the cores that it may use.
    """
    wanted = {name: str(count) for name in THREAD_VARIABLES}
    if count < cores() and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | wanted)


def as_installed() -> dict[str, str]:
    """Variables for an interpreter that keeps its bytecode, as a user's does."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def environment() -> dict[str, Any]:
    """Machine, versions, commit, date, and what gpunet's device "cpu" is: with compiled kernels or without."""
    import numpy as np

    import gpunet

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    blas: Any = np.show_config(mode="dicts")
    blas = blas["Build Dependencies"]["blas"]
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    versions = {name: installed[name] for name in NAMES if name in installed}
    versions |= {"python": platform.python_version(), "blas": f"{blas['name']} {blas['version']}"}
    machine = {"cpu": model, "cores": os.cpu_count(), "system": platform.platform()}
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    device = gpunet.device("cpu").detail
    return {"machine": machine, "versions": versions, "device": device, "commit": commit(), "date": date}


def commit() -> str | None:
    """The commit of this checkout, with a + if files differ from it; None outside one."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        done = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain", ".."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() + ("+" if changed.stdout.strip() else "")


def write(options: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
    """The rows with all that they depend on, as JSON, if --json was given."""
    if options.json:
        about = {k: v for k, v in vars(options).items() if k != "json"}
        options.json.write_text(json.dumps(environment() | {"options": about, "rows": rows}, indent=1) + "\n")
