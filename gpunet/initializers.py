"""Initial values of parameters, drawn on the host and keyed by (seed, path, shape).

A weight has shape (fan_in, fan_out): inputs and outputs of one unit. ``gain`` multiplies the standard deviation; layers
that need one other than 1 have it as an attribute: ``GlorotUniform(gain=layers.Tanh.gain)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpunet.backend import Shape, host
from gpunet.errors import ShapeError


@dataclass(frozen=True)
class Constant:
    """One number everywhere."""

    value: float

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return host().zeros(shape, "float64") + self.value


@dataclass(frozen=True)
class Zeros:
    """All zeros: for biases."""

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return host().zeros(shape, "float64")


@dataclass(frozen=True)
class Ones:
    """All ones: for scales."""

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return host().zeros(shape, "float64") + 1.0


@dataclass(frozen=True)
class Normal:
    """Normal with mean 0."""

    std: float = 0.05

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return host().normal(seed, path, shape) * self.std


@dataclass(frozen=True)
class TruncatedNormal:
    """Normal with mean 0, values beyond two standard deviations drawn again. What is left has 0.88 of ``std``."""

    std: float = 0.05

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        xp, z, again = host().xp, host().normal(seed, path, shape), 0
        while (outside := xp.abs(z) > 2).any():
            again += 1
            z = xp.where(outside, host().normal(seed, f"{path} {again}", shape), z)
        return z * self.std


@dataclass(frozen=True)
class Uniform:
    """Uniform in ±limit."""

    limit: float = 0.05

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return (2 * host().uniform(seed, path, shape) - 1) * self.limit


@dataclass(frozen=True)
class GlorotNormal:
    """Normal with standard deviation gain √(2 / (fan_in + fan_out)).

    Reference: Glorot, Bengio: Understanding the Difficulty of Training Deep Feedforward Neural Networks (2010).
    """

    gain: float = 1.0

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return Normal(self.gain * math.sqrt(2 / max(shape[0] + shape[-1], 1)))(seed, path, shape)


@dataclass(frozen=True)
class GlorotUniform:
    """Uniform in ±gain √(6 / (fan_in + fan_out)): keeps the variance of activations and gradients through tanh.

    Reference: Glorot, Bengio: Understanding the Difficulty of Training Deep Feedforward Neural Networks (2010).
    """

    gain: float = 1.0

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return Uniform(self.gain * math.sqrt(6 / max(shape[0] + shape[-1], 1)))(seed, path, shape)


@dataclass(frozen=True)
class HeNormal:
    """Normal with standard deviation gain √(2 / fan_in): keeps the variance of activations through ReLU layers.

    Reference: He, Zhang, Ren, Sun: Delving Deep into Rectifiers (2015).
    """

    gain: float = 1.0

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return Normal(self.gain * math.sqrt(2 / max(shape[0], 1)))(seed, path, shape)


@dataclass(frozen=True)
class HeUniform:
    """Uniform in ±gain √(6 / fan_in).

    Reference: He, Zhang, Ren, Sun: Delving Deep into Rectifiers (2015).
    """

    gain: float = 1.0

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return Uniform(self.gain * math.sqrt(6 / max(shape[0], 1)))(seed, path, shape)


@dataclass(frozen=True)
class LeCunNormal:
    """Normal with standard deviation gain √(1 / fan_in): for SELU.

    Reference: LeCun, Bottou, Orr, Müller: Efficient BackProp (1998).
    """

    gain: float = 1.0

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return Normal(self.gain * math.sqrt(1 / max(shape[0], 1)))(seed, path, shape)


@dataclass(frozen=True)
class LeCunUniform:
    """Uniform in ±gain √(3 / fan_in).

    Reference: LeCun, Bottou, Orr, Müller: Efficient BackProp (1998).
    """

    gain: float = 1.0

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return Uniform(self.gain * math.sqrt(3 / max(shape[0], 1)))(seed, path, shape)


@dataclass(frozen=True)
class Orthogonal:
    """Orthonormal rows or columns, whichever are fewer, times gain: a linear layer then keeps lengths.

    Raises     ShapeError: not a matrix.

    Reference: Saxe, McClelland, Ganguli: Exact Solutions to the Nonlinear Dynamics of Learning (2014).
    """

    gain: float = 1.0

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        rows, columns = _matrix(self, shape)
        xp = host().xp
        tall = (max(rows, columns), min(rows, columns))
        q, r = xp.linalg.qr(host().normal(seed, path, tall))
        q = q * xp.sign(xp.linalg.diagonal(r))  # uniform over all such matrices
        return self.gain * (q if rows >= columns else q.T)


@dataclass(frozen=True)
class IdentityMatrix:
    """Ones on the diagonal, times gain.

    Raises     ShapeError: not a matrix.
    """

    gain: float = 1.0

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        return self.gain * host().xp.eye(*_matrix(self, shape))


def _matrix(initializer: Any, shape: Shape) -> Shape:
    """Refuse shapes that are no matrix."""
    if len(shape) != 2:
        raise ShapeError(f"{type(initializer).__name__} is for matrices, but the parameter has shape {shape}.")
    return shape
