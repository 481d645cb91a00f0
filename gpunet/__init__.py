"""gpunet: neural networks by explicit, layer-by-layer backpropagation, on NVIDIA GPUs and CPUs.

Names are loaded on first use, so that ``import gpunet`` costs little.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpunet import (
        data,
        datasets,
        errors,
        formula,
        initializers,
        layers,
        losses,
        metrics,
        optim,
        parity,
        schedules,
        testing,
        train,
    )
    from gpunet._gradcheck import gradcheck
    from gpunet.backend import Backend, device, devices
    from gpunet.errors import GpunetError
    from gpunet.io import load, save
    from gpunet.train import History, Trainer, TrainStep

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "GpunetError",
    "History",
    "TrainStep",
    "Trainer",
    "data",
    "datasets",
    "device",
    "devices",
    "errors",
    "formula",
    "gradcheck",
    "initializers",
    "layers",
    "load",
    "losses",
    "metrics",
    "optim",
    "parity",
    "save",
    "schedules",
    "testing",
    "train",
]

_HOMES = {
    "Backend": "gpunet.backend",
    "GpunetError": "gpunet.errors",
    "History": "gpunet.train",
    "TrainStep": "gpunet.train",
    "Trainer": "gpunet.train",
    "device": "gpunet.backend",
    "devices": "gpunet.backend",
    "gradcheck": "gpunet._gradcheck",
    "load": "gpunet.io",
    "save": "gpunet.io",
}
"""Where the names live that are not modules."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in __all__:
        raise AttributeError(f"module 'gpunet' has no attribute '{name}'. It has: {', '.join(__all__)}")
    home = import_module(_HOMES.get(name, f"gpunet.{name}"))
    value = getattr(home, name) if name in _HOMES else home
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
