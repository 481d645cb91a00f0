"""What a result depends on: threads, machine, versions."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np


def environment(threads: int) -> dict[str, Any]:
    """What a result depends on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    blas: Any = np.show_config(mode="dicts")
    blas = blas["Build Dependencies"]["blas"]
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    versions = {name: installed[name] for name in ("gpunet", "numpy", "torch") if name in installed}
    versions |= {"python": platform.python_version(), "blas": f"{blas['name']} {blas['version']}"}
    machine = {"cpu": model, "cores": os.cpu_count(), "system": platform.platform()}
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"machine": machine, "versions": versions, "threads": threads, "date": date}


def pin_threads(count: int) -> None:
    """Start this script again with the thread count in the environment: BLAS reads it when NumPy is imported."""
    wanted = {name: str(count) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | wanted)
