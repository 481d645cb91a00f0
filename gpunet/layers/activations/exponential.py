"""Exponential linear units: linear for positive inputs, an exponential that saturates below."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from gpunet.backend import Array
from gpunet.errors import ArgumentError
from gpunet.pointwise import Pointwise

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""So that mean 0 and variance 1 are a fixed point."""


@dataclass(eq=False, kw_only=True, repr=False)
class ELU(Pointwise):
    """Exponential linear unit.

    Forward    y = x where x > 0, else α (exp(x) - 1)
    Backward   dx = dy where y > 0, else dy (y + α)
    Shapes     x, y (…, k)
    Raises     ArgumentError: alpha < 0.

    Reference: Clevert, Unterthiner, Hochreiter: Fast and Accurate Deep Network Learning by ELUs (2016).
    """

    alpha: float = field(default=1.0, kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha >= 0:
            raise ArgumentError(f"ELU needs alpha >= 0, but got {self.alpha!r}.")

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x where x > 0, else α (exp(x) - 1)"""
        return xp.where(x > 0, x, self.alpha * xp.expm1(x))

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy where y > 0, else dy (y + α)"""
        return xp.where(y > 0, dy, dy * (y + self.alpha))


class SELU(Pointwise):
    """Scaled ELU: with LeCun normal weights, activations keep mean 0 and variance 1.

    Forward    y = s x where x > 0, else s α (exp(x) - 1)
    Backward   dx = s dy where y > 0, else dy (y + s α)
    Shapes     x, y (…, k)

    Reference: Klambauer, Unterthiner, Mayr, Hochreiter: Self-Normalizing Neural Networks (2017).
    """

    gain: ClassVar[float] = 3 / 4

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """s x where x > 0, else s α (exp(x) - 1)"""
        return SELU_SCALE * xp.where(x > 0, x, SELU_ALPHA * xp.expm1(x))

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """s dy where y > 0, else dy (y + s α)"""
        return xp.where(y > 0, SELU_SCALE * dy, dy * (y + SELU_SCALE * SELU_ALPHA))


@dataclass(eq=False, kw_only=True, repr=False)
class CELU(Pointwise):
    """ELU with a continuous slope for every alpha.

    Forward    y = x where x > 0, else α (exp(x / α) - 1)
    Backward   dx = dy where y > 0, else dy (y / α + 1)
    Shapes     x, y (…, k)
    Raises     ArgumentError: alpha not positive.

    Reference: Barron: Continuously Differentiable Exponential Linear Units (2017).
    """

    alpha: float = field(default=1.0, kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise ArgumentError(f"CELU needs alpha > 0, but got {self.alpha!r}.")

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x where x > 0, else α (exp(x / α) - 1)"""
        return xp.where(x > 0, x, self.alpha * xp.expm1(x / self.alpha))

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy where y > 0, else dy (y / α + 1)"""
        return xp.where(y > 0, dy, dy * (y / self.alpha + 1))
