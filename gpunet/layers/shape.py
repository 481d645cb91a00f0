"""Layers that only change shapes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from gpunet.backend import Array, Shape
from gpunet.context import Context
from gpunet.errors import ShapeError
from gpunet.layer import Layer, Saved, batched


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


@dataclass(eq=False, kw_only=True, repr=False)
class Reshape(Layer):
    """The elements of a sample in another shape; one axis may be -1: what is left.

    Shapes     x (N, …)   y (N, *shape)
    Raises     ShapeError: another number of elements.
    """

    shape: tuple[int, ...] = field(kw_only=False)

    def setup(self, shape: Shape) -> Shape:
        """The shape asked for, with -1 replaced."""
        wanted, size = tuple(self.shape), math.prod(shape)
        known = math.prod(n for n in wanted if n != -1)
        free = wanted.count(-1)
        if free > 1 or any(n < -1 for n in wanted) or (size % known if free and known else known != size):
            raise ShapeError(
                f"{self.title} cannot turn {batched(shape)}, {size} elements, into {batched(wanted)}. "
                "Give a shape with as many elements, at most one axis of it -1."
            )
        self._sample = tuple(size // known if n == -1 else n for n in wanted)
        return self._sample

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """y (N, *shape)"""
        return ctx.backend.xp.reshape(x, (x.shape[0], *self._sample)), tuple(x.shape)

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """dx in the shape of x"""
        return ctx.backend.xp.reshape(dy, saved) if ctx.needs_input_grad else None


@dataclass(eq=False, kw_only=True, repr=False)
class Permute(Layer):
    """The axes of a sample in another order, counted from 1 as in Keras: (2, 1) swaps the two after the batch's.

    Shapes     x (N, …)   y (N, …), yᵢ of length x at axes[i]
    Raises     ShapeError: not each axis once.
    """

    axes: tuple[int, ...] = field(kw_only=False)

    def setup(self, shape: Shape) -> Shape:
        """The lengths in the new order."""
        if sorted(self.axes) != list(range(1, len(shape) + 1)):
            raise ShapeError(
                f"{self.title} needs each axis of {batched(shape)} once, from 1 to {len(shape)}, but got {self.axes}."
            )
        self._back = tuple(1 + self.axes.index(i) for i in range(1, len(shape) + 1))
        return tuple(shape[i - 1] for i in self.axes)

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """y, a view"""
        return ctx.backend.xp.permute_dims(x, (0, *self.axes)), None

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """dx, a view"""
        return ctx.backend.xp.permute_dims(dy, (0, *self._back)) if ctx.needs_input_grad else None
