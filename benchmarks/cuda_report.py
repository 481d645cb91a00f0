"""What a run on a GPU writes: its rows, what failed or does not exist, and all that they depend on."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from cuda_peers import NotAvailable
from environment import environment
from race import Contender, race, show, summary

import gpunet as gn

PACKAGES = ("cupy-cuda12x", "cupy-cuda13x", "nvmath-python", "triton", "nvidia-cublas", "array-api-compat")
LABELS = ("name", "shape", "batch", "precision", "inputs")
FIRST_STEPS = 4  # warm-up, compilation and capture are over then
T = TypeVar("T")


class Report:
    """Rows, written to a file after each one: what is measured is kept, whatever happens later.

    disagreed  a contender computed something else than its peers
    """

    def __init__(self, device: str, options: dict[str, Any], path: Path | None, minutes: float):
        self.device, self.path, self.minutes = device, path, minutes
        self.start = time.perf_counter()
        self.facts = environment() | {"options": options} | gpu(device)
        self.rows: list[dict[str, Any]] = []
        self.disagreed = False

    def say(self, text: str) -> None:
        """Print, with the seconds since the start."""
        print(f"[{time.perf_counter() - self.start:4.0f} s] {text}", flush=True)

    def time_is_up(self) -> bool:
        return time.perf_counter() - self.start > 60 * self.minutes

    def add(self, row: dict[str, Any]) -> None:
        """Show and write a row."""
        self.rows.append(row)
        if row.get("microseconds"):
            show(", ".join(str(row[key]) for key in LABELS if key in row), row)
        for key in row:
            if key.startswith("percent"):
                print(f"  {key.replace('_', ' ')}: {', '.join(f'{n} {v:.0f}' for n, v in row[key].items())}")
        for kind in ("not_available", "failed"):
            for name, reason in row.get(kind, {}).items():
                print(f"  {name}: {kind.replace('_', ' ')}: {reason}", flush=True)
        self.write()

    def write(self) -> None:
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.facts | {"rows": self.rows}, indent=1) + "\n")

    def attempt(self, row: dict[str, Any], name: str, function: Callable[[], T]) -> T | None:
        """The function's result; None if it raises, and then the row says why."""
        try:
            return function()
        except NotAvailable as reason:
            row.setdefault("not_available", {})[name] = str(reason)
        except AssertionError as error:
            self.disagreed = True
            row.setdefault("failed", {})[name] = f"disagrees: {shortened(error)}"
        except Exception as error:  # out of memory, a compiler that gives up: the others go on
            row.setdefault("failed", {})[name] = f"{type(error).__name__}: {shortened(error)}"
        return None

    def race(
        self, row: dict[str, Any], contenders: Mapping[str, Contender], rounds: int, batches: int
    ) -> dict[str, float]:
        """Time those whose first steps do not fail, in turns; -> the least microseconds of each."""

        def begin(contender: Contender) -> Contender:
            for i in range(FIRST_STEPS):
                contender.step(i % batches)
            contender.finish()
            return contender

        running = {}
        for name, contender in contenders.items():
            if self.attempt(row, name, lambda c=contender: begin(c)):
                running[name] = contender
        if not running:
            return {}
        made = self.attempt(row, "race", lambda: race(running, rounds, batches))
        if made is None:
            return {}
        base = "gpunet" if "gpunet" in made else next(iter(made))
        result = summary(made, base)
        row["microseconds"], row["ratio"] = result["microseconds"], result["ratio"] if base == "gpunet" else {}
        return {name: us["min"] for name, us in row["microseconds"].items()}


def shortened(error: BaseException) -> str:
    """The first lines of a message, on one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:300]


def free_memory(device: str) -> None:
    """Give back what contenders of the row before held: two allocators share the GPU."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        cupy: Any = importlib.import_module("cupy")
        cupy.get_default_memory_pool().free_all_blocks()


def gpu(device: str) -> dict[str, Any]:
    """The GPU, its driver, CUDA and the libraries on it."""
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    made: dict[str, Any] = {"libraries": {name: installed[name] for name in PACKAGES if name in installed}}
    made["device"] = gn.device(device).detail
    if device != "cuda":
        return made | {"gpu": None}
    runtime: Any = importlib.import_module("cupy").cuda.runtime
    properties = torch.cuda.get_device_properties(0)
    return made | {
        "gpu": {
            "name": properties.name,
            "memory_GB": properties.total_memory / 1e9,
            "multiprocessors": properties.multi_processor_count,
            "driver": driver(),
            "cuda_driver": runtime.driverGetVersion(),
            "cuda_runtime": runtime.runtimeGetVersion(),
            "torch_cuda": torch.version.cuda,
        }
    }


def driver() -> str | None:
    """Version of NVIDIA's driver, from nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
