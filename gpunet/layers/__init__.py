"""Layers. The folder listing is the table of contents."""

from gpunet.layers.activations import (
    CELU,
    ELU,
    GELU,
    GLU,
    SELU,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    ReLU6,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    SwiGLU,
    Tanh,
)
from gpunet.layers.compose import Add, Concat, Residual
from gpunet.layers.dense import Dense
from gpunet.layers.dropout import Dropout
from gpunet.layers.embedding import Embedding
from gpunet.layers.normalization import BatchNorm, LayerNorm, RMSNorm
from gpunet.layers.sequential import Sequential
from gpunet.layers.shape import Flatten, Permute, Reshape

__all__ = [
    "CELU",
    "ELU",
    "GELU",
    "GLU",
    "SELU",
    "Add",
    "BatchNorm",
    "Concat",
    "Dense",
    "Dropout",
    "Embedding",
    "Flatten",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "Mish",
    "PReLU",
    "Permute",
    "RMSNorm",
    "ReLU",
    "ReLU6",
    "Reshape",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "SwiGLU",
    "Tanh",
]
