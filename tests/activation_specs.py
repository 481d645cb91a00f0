"""One spec for each activation, its output in another notation than the library's."""

from __future__ import annotations

import math

import numpy as np
from spec import LayerSpec

from gpunet import layers

erf = np.vectorize(math.erf, otypes=[float])
ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805


def logistic(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))


def positive(x: np.ndarray) -> np.ndarray:
    return (x + np.abs(x)) / 2


def negative(x: np.ndarray) -> np.ndarray:
    return (x - np.abs(x)) / 2


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return x * logistic(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


def mish(x: np.ndarray) -> np.ndarray:
    square = (1 + np.exp(x)) ** 2
    return x * (square - 1) / (square + 1)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.logaddexp.reduce(x, axis=-1, keepdims=True)


ELEMENTWISE = {
    "identity": (layers.Identity, lambda x, p: 1 * x),
    "relu": (layers.ReLU, lambda x, p: positive(x)),
    "relu6": (layers.ReLU6, lambda x, p: np.clip(x, 0, 6)),
    "leaky_relu": (layers.LeakyReLU, lambda x, p: positive(x) + 0.01 * negative(x)),
    "leaky_relu_steep": (lambda: layers.LeakyReLU(0.3), lambda x, p: positive(x) + 0.3 * negative(x)),
    "prelu": (layers.PReLU, lambda x, p: positive(x) + p["slope"] * negative(x)),
    "prelu_each": (lambda: layers.PReLU(shared=False), lambda x, p: positive(x) + p["slope"] * negative(x)),
    "elu": (layers.ELU, lambda x, p: positive(x) + np.exp(negative(x)) - 1),
    "elu_half": (lambda: layers.ELU(0.5), lambda x, p: positive(x) + 0.5 * (np.exp(negative(x)) - 1)),
    "selu": (layers.SELU, lambda x, p: SCALE * (positive(x) + ALPHA * (np.exp(negative(x)) - 1))),
    "celu": (lambda: layers.CELU(0.7), lambda x, p: positive(x) + 0.7 * (np.exp(negative(x) / 0.7) - 1)),
    "gelu": (layers.GELU, lambda x, p: x / 2 * (1 + erf(x / math.sqrt(2)))),
    "gelu_tanh": (lambda: layers.GELU(approximate=True), lambda x, p: gelu_tanh(x)),
    "silu": (layers.SiLU, lambda x, p: x * logistic(x)),
    "mish": (layers.Mish, lambda x, p: mish(x)),
    "softplus": (layers.Softplus, lambda x, p: np.logaddexp(0, x)),
    "softplus_steep": (lambda: layers.Softplus(3.0), lambda x, p: np.logaddexp(0, 3 * x) / 3),
    "softsign": (layers.Softsign, lambda x, p: np.sign(x) * (1 - 1 / (1 + np.abs(x)))),
    "sigmoid": (layers.Sigmoid, lambda x, p: logistic(x)),
    "tanh": (layers.Tanh, lambda x, p: 1 - 2 / (1 + np.exp(2 * x))),
    "hard_sigmoid": (layers.HardSigmoid, lambda x, p: np.clip((x + 3) / 6, 0, 1)),
    "hard_swish": (layers.HardSwish, lambda x, p: x * np.clip((x + 3) / 6, 0, 1)),
    "glu": (layers.GLU, lambda x, p: x[..., :3] * logistic(x[..., 3:])),
    "swiglu": (layers.SwiGLU, lambda x, p: x[..., :3] * logistic(x[..., :3]) * x[..., 3:]),
}
ACTIVATIONS = [
    *(LayerSpec(name, make, (5, 6), reference, maps=True) for name, (make, reference) in ELEMENTWISE.items()),
    LayerSpec("softmax", layers.Softmax, (5, 4), lambda x, p: np.exp(log_softmax(x))),
    LayerSpec("log_softmax", layers.LogSoftmax, (5, 4), lambda x, p: log_softmax(x)),
]
