"""gpunet: neural networks by explicit, layer-by-layer backpropagation, on NVIDIA GPUs and CPUs."""

from gpunet import data, datasets, errors, formula, initializers, layers, losses, metrics, optim, train
from gpunet._gradcheck import gradcheck
from gpunet.backend import Backend, device, devices
from gpunet.errors import GpunetError
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
    "losses",
    "metrics",
    "optim",
    "train",
]
