"""Smooth relatives of ReLU: an input times something between 0 and 1."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.errors import ArgumentError
from gpunet.formula import erf, sigmoid
from gpunet.pointwise import Pointwise

SQRT_2_OVER_PI, CUBIC = math.sqrt(2 / math.pi), 0.044715


@dataclass(eq=False, kw_only=True, repr=False)
class GELU(Pointwise):
    """Gaussian error linear unit: x times the probability that a normal number is below x.

    Forward    y = x Φ(x);   approximate: y = x (1 + tanh u) / 2,  u = √(2/π) (x + 0.044715 x³)
    Backward   dx = dy (Φ(x) + x φ(x));   approximate: dx = dy ((1 + t) / 2 + x (1 - t²) u′ / 2),  t = tanh u
    Shapes     x, y (…, k)

    Reference: Hendrycks, Gimpel: Gaussian Error Linear Units (2016).
    """

    approximate: bool = False

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x Φ(x)"""
        if self.approximate:
            return 0.5 * x * (1 + xp.tanh(SQRT_2_OVER_PI * (x + CUBIC * (x * x * x))))
        return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy (Φ(x) + x φ(x))"""
        if self.approximate:
            t = xp.tanh(SQRT_2_OVER_PI * (x + CUBIC * (x * x * x)))
            slope = SQRT_2_OVER_PI * (1 + 3 * CUBIC * (x * x))
            return dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope)
        density = math.sqrt(0.5 / math.pi) * xp.exp(-0.5 * (x * x))
        return dy * (0.5 * (1 + erf(x * math.sqrt(0.5))) + x * density)


class SiLU(Pointwise):
    """Sigmoid linear unit, also called swish.

    Forward    y = x σ(x)
    Backward   dx = dy σ(x) (1 + x (1 - σ(x)))
    Shapes     x, y (…, k)

    Reference: Elfwing, Uchibe, Doya: Sigmoid-Weighted Linear Units (2018).
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x σ(x)"""
        return x * sigmoid(x)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy σ(x) (1 + x (1 - σ(x)))"""
        s = sigmoid(x)
        return dy * (s * (1 + x * (1 - s)))


class Mish(Pointwise):
    """Like SiLU, a little steeper.

    Forward    y = x tanh(softplus(x))
    Backward   dx = dy (t + x (1 - t²) σ(x)),  t = tanh(softplus(x))
    Shapes     x, y (…, k)

    Reference: Misra: Mish: A Self Regularized Non-Monotonic Activation Function (2020).
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x tanh(softplus(x))"""
        return x * xp.tanh(softplus(xp, x))

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy (t + x (1 - t²) σ(x))"""
        t = xp.tanh(softplus(xp, x))
        return dy * (t + x * (1 - t * t) * sigmoid(x))


@dataclass(eq=False, kw_only=True, repr=False)
class Softplus(Pointwise):
    """A smooth ReLU, always positive.

    Forward    y = log(1 + exp(β x)) / β
    Backward   dx = dy σ(β x)
    Shapes     x, y (…, k)
    Raises     ArgumentError: beta not positive.

    Reference: Dugas, Bengio, Bélisle, Nadeau, Garcia: Incorporating Second-Order Functional Knowledge (2001).
    """

    beta: float = field(default=1.0, kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise ArgumentError(f"Softplus needs beta > 0, but got {self.beta!r}.")

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """log(1 + exp(β x)) / β"""
        return softplus(xp, self.beta * x) / self.beta

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy σ(β x)"""
        return dy * sigmoid(self.beta * x)


def softplus(xp: Any, x: Array) -> Array:
    """log(1 + exp(x)), which does not overflow"""
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


class HardSwish(Pointwise):
    """SiLU in straight lines and a parabola.

    Forward    y = x min(max(x + 3, 0), 6) / 6
    Backward   dx = 0 where x <= -3, dy where x >= 3, else dy (2 x + 3) / 6
    Shapes     x, y (…, k)

    Reference: Howard et al.: Searching for MobileNetV3 (2019).
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x min(max(x + 3, 0), 6) / 6; -inf gives 0"""
        return xp.where(x <= -3, 0.0, x * (xp.minimum(x + 3, 6.0) / 6))

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """0 where x <= -3, dy where x >= 3, else dy (2 x + 3) / 6"""
        return xp.where(x <= -3, 0.0, xp.where(x >= 3, dy, dy * ((2 * x + 3) / 6)))
