"""Rectified linear units."""

from __future__ import annotations

from typing import Any

from gpunet.backend import Array
from gpunet.pointwise import Pointwise


class ReLU(Pointwise):
    """Rectified linear unit: the usual choice between hidden layers, since its slope does not shrink gradients.

    Forward    y = max(x, 0)
    Backward   dx = dy where y > 0, else 0. A unit that is never positive gets no gradient any more: it is dead.
    Shapes     x, y (…, k)

    Reference: Nair, Hinton: Rectified Linear Units Improve Restricted Boltzmann Machines (2010).
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """max(x, 0); NaN stays NaN"""
        return xp.maximum(x, 0.0)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy where y > 0"""
        return xp.where(y <= 0, 0.0, dy)
