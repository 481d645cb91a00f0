"""Activations, one family a file."""

from gpunet.layers.activations.exponential import CELU, ELU, SELU
from gpunet.layers.activations.gated import GLU, SwiGLU
from gpunet.layers.activations.rectified import LeakyReLU, PReLU, ReLU, ReLU6
from gpunet.layers.activations.saturating import HardSigmoid, Identity, Sigmoid, Softsign, Tanh
from gpunet.layers.activations.smooth import GELU, HardSwish, Mish, SiLU, Softplus
from gpunet.layers.activations.softmax import LogSoftmax, Softmax

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyReLU",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "ReLU",
    "ReLU6",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "SwiGLU",
    "Tanh",
]
