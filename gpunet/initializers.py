"""Initial values of parameters, drawn on the host and keyed by (seed, path, shape).

A weight has shape (fan_in, fan_out): inputs and outputs of one unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpunet.backend import Shape, host


@dataclass(frozen=True)
class HeNormal:
    """Normal with standard deviation √(2 / fan_in), which keeps the variance of activations through ReLU layers.

    Reference: He, Zhang, Ren, Sun: Delving Deep into Rectifiers (2015).
    """

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return host().normal(seed, path, shape) * math.sqrt(2 / max(shape[0], 1))


@dataclass(frozen=True)
class GlorotUniform:
    """Uniform in ±√(6 / (fan_in + fan_out)), which keeps the variance of activations and gradients through tanh layers.

    Reference: Glorot, Bengio: Understanding the Difficulty of Training Deep Feedforward Neural Networks (2010).
    """

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        limit = math.sqrt(6 / max(shape[0] + shape[-1], 1))
        return (2 * host().uniform(seed, path, shape) - 1) * limit


@dataclass(frozen=True)
class Zeros:
    """All zeros: for biases."""

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return host().zeros(shape, "float64")
