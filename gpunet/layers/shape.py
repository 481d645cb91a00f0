"""Layers that only change shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gpunet.backend import Array, Shape
from gpunet.layer import Context, Layer, Saved


@dataclass(eq=False, kw_only=True, repr=False)
class Flatten(Layer):
    """All axes of a sample as one.

    Shapes     x (N, …)   y (N, product of …)
    """

    def setup(self, shape: Shape) -> Shape:
        """One axis."""
        return (math.prod(shape),)

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """y (N, k)"""
        n, *rest = x.shape
        return ctx.backend.xp.reshape(x, (n, math.prod(rest))), tuple(x.shape)

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """dx in the shape of x"""
        return ctx.backend.xp.reshape(dy, saved) if ctx.needs_input_grad else None
