"""Rectified linear units: slope 1 for positive inputs, less or nothing for others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gpunet.backend import Array, Shape
from gpunet.context import Context
from gpunet.errors import ArgumentError
from gpunet.initializers import Constant
from gpunet.parameter import Initializer, Parameter
from gpunet.pointwise import Pointwise


class ReLU(Pointwise):
    """Rectified linear unit: the usual choice between hidden layers, since its slope does not shrink gradients.

    Forward    y = max(x, 0)
    Backward   dx = dy where y > 0, else 0. A unit that is never positive gets no gradient any more: it is dead.
    Shapes     x, y (…, k)

    Reference: Nair, Hinton: Rectified Linear Units Improve Restricted Boltzmann Machines (2010).
    """

    gain: ClassVar[float] = math.sqrt(2)

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """max(x, 0); NaN stays NaN"""
        return xp.maximum(x, 0.0)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy where y > 0"""
        return xp.where(y <= 0, 0.0, dy)


class ReLU6(Pointwise):
    """ReLU that stops at 6.

    Forward    y = min(max(x, 0), 6)
    Backward   dx = dy where 0 < y < 6, else 0
    Shapes     x, y (…, k)

    Reference: Krizhevsky: Convolutional Deep Belief Networks on CIFAR-10 (2010).
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """min(max(x, 0), 6)"""
        return xp.minimum(xp.maximum(x, 0.0), 6.0)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy where 0 < y < 6"""
        return xp.where((y <= 0) | (y >= 6), 0.0, dy)


@dataclass(eq=False, kw_only=True, repr=False)
class LeakyReLU(Pointwise):
    """ReLU with a small slope for negative inputs, so that no unit dies.

    Forward    y = x where x > 0, else a x
    Backward   dx = dy where y > 0, else a dy
    Shapes     x, y (…, k)
    Raises     ArgumentError: a negative slope, with which y would not tell the sign of x.

    Reference: Maas, Hannun, Ng: Rectifier Nonlinearities Improve Neural Network Acoustic Models (2013).
    """

    negative_slope: float = field(default=0.01, kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.negative_slope >= 0:
            raise ArgumentError(f"LeakyReLU needs negative_slope >= 0, but got {self.negative_slope!r}.")

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x where x > 0, else a x"""
        return xp.where(x > 0, x, self.negative_slope * x)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy where y > 0, else a dy"""
        return xp.where(y > 0, dy, self.negative_slope * dy)


@dataclass(eq=False, kw_only=True, repr=False)
class PReLU(Pointwise):
    """LeakyReLU whose slope is learned.

    Forward    y = x where x > 0, else a x
    Backward   dx = dy where x > 0, else a dy      da = Σ x dy where x <= 0
    Shapes     x, y (…, k)   a (1,), or (k,) with ``shared=False``

    Reference: He, Zhang, Ren, Sun: Delving Deep into Rectifiers (2015).
    """

    shared: bool = True
    slope_init: Initializer = Constant(0.25)

    def setup(self, shape: Shape) -> Shape:
        """Declare the slope."""
        self.slope = self.parameter("slope", (1,) if self.shared else shape[-1:], self.slope_init)
        return shape

    def operands(self, ctx: Context) -> tuple[Parameter | Array, ...]:
        """(a,)"""
        return (self.slope,)

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x where x > 0, else a x"""
        (a,) = operands
        return xp.where(x > 0, x, a * x)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dx, and da before the sum"""
        (a,) = operands
        return xp.where(x > 0, dy, a * dy), xp.where(x > 0, 0.0, x * dy)
