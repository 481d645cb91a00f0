"""Where and when a device computed something."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from typing import Any

import gpunet
from gpunet.backend import Backend

PACKAGES = ("numpy", "numba", "array-api-compat", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python", "torch")


def environment(backend: Backend) -> dict[str, Any]:
    """The device with its driver, versions, system, the commit of the project in the current folder, the date."""
    installed = {str(d.metadata["Name"]).lower(): d.version for d in importlib.metadata.distributions()}
    return {
        "device": str(getattr(backend, "detail", backend.name)),
        "driver": getattr(backend, "driver", None),
        "gpunet": gpunet.__version__,
        "python": platform.python_version(),
        "versions": {name: installed[name] for name in PACKAGES if name in installed},
        "system": platform.platform(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def commit() -> str | None:
    """Of the checkout in the current folder, with a + if files differ from it; None outside one."""
    ask = ["git", "--no-optional-locks"]
    try:
        head = subprocess.run([*ask, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*ask, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return os.environ.get("GITHUB_SHA", "")[:12] or None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
