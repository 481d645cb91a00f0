"""Layers that combine others: shortcuts and branches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunet.backend import Array, Shape
from gpunet.context import Context
from gpunet.errors import ArgumentError, ShapeError
from gpunet.layer import Layer, Saved, batched
from gpunet.layers.sequential import Sequential
from gpunet.parameter import Parameter


class Residual(Layer):
    """A shortcut around some layers, past which the gradient flows undiminished.

    Forward    y = x + f(x)
    Backward   dx = dy + f′(dy)
    Shapes     x, y (…), the shape that f must keep
    Raises     ShapeError: f changes the shape.

    Reference: He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (2016).
    """

    fresh_output = True
    fresh_input_grad = True

    def __init__(self, *layers: Layer, name: str | None = None):
        super().__init__(name=name)
        self.body = Sequential(*layers)

    def setup(self, shape: Shape) -> Shape:
        """The body's, which must be the input's."""
        output = self.body.attach(shape, self.backend, self.dtype, prefix=self.prefix)
        if output != shape:
            raise ShapeError(
                f"{self.title} adds its input to the output of its layers, but they turn {batched(shape)} into "
                f"{batched(output)}. Let the last one have {shape[-1] if shape else 'as many'} units."
            )
        self._add = self.backend.fuse(_sum)
        return shape

    def sublayers(self) -> Sequence[Layer]:
        """What the shortcut goes around."""
        return [self.body]

    def parameters(self) -> list[Parameter]:
        """Of the body."""
        return self.body.parameters()

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"layers": self.body.layers, "name": self.name}

    def __repr__(self) -> str:
        return repr(self.body).replace("Sequential", "Residual", 1)

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """x + f(x)"""
        y, saved = self.body.forward(x, ctx)
        return self._add(x, y), saved

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """dy + f′(dy)"""
        dx = self.body.backward(dy, saved, ctx)
        return None if dx is None else self._add(dy, dx)


class Branches(Layer):
    """Base of layers that give their input to several others. Each branch is a layer; a row of them is a Sequential."""

    def __init__(self, *branches: Layer, name: str | None = None):
        super().__init__(name=name)
        if len(branches) < 2:
            raise ArgumentError(f"{type(self).__name__} needs two branches or more, but got {len(branches)}.")
        self.branches = list(branches)

    def setup(self, shape: Shape) -> Shape:
        """Attach the branches; the output's shape follows from theirs."""
        outputs = [
            branch.attach(shape, self.backend, self.dtype, prefix=f"{self.prefix}{branch.name or i}.")
            for i, branch in enumerate(self.branches)
        ]
        self._add = self.backend.fuse(_sum)
        return self.joined(outputs)

    def joined(self, shapes: list[Shape]) -> Shape:
        """The output's shape."""
        raise NotImplementedError(f"{type(self).__name__} does not define joined")

    def sublayers(self) -> Sequence[Layer]:
        """The branches."""
        return self.branches

    def parameters(self) -> list[Parameter]:
        """Of all branches."""
        return [p for branch in self.branches for p in branch.parameters()]

    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"branches": self.branches, "name": self.name}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.branches))})"

    def run(self, x: Array, ctx: Context) -> tuple[list[Array], list[Saved]]:
        """Outputs of the branches, and what they saved."""
        results = [branch.forward(x, ctx) for branch in self.branches]
        return [y for y, _ in results], [saved for _, saved in results]

    def summed(self, dys: Sequence[Array], saved: list[Saved], ctx: Context) -> Array | None:
        """dx = Σ dxᵢ"""
        dxs = [b.backward(dy, kept, ctx) for b, dy, kept in zip(self.branches, dys, saved, strict=True)]
        return self._add(*dxs) if ctx.needs_input_grad else None


class Add(Branches):
    """The sum of branches.

    Forward    y = Σ fᵢ(x)
    Backward   dx = Σ fᵢ′(dy)
    Shapes     all branches give (…, k)
    Raises     ShapeError: their shapes differ.
    """

    fresh_output = True
    fresh_input_grad = True

    def joined(self, shapes: list[Shape]) -> Shape:
        """That of each branch."""
        if len(set(shapes)) > 1:
            raise ShapeError(
                f"{self.title} adds its branches, but they give {' and '.join(map(batched, shapes))}. "
                "Let all have the same number of units."
            )
        return shapes[0]

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """Σ fᵢ(x)"""
        ys, saved = self.run(x, ctx)
        return self._add(*ys), saved

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """Σ fᵢ′(dy)"""
        return self.summed([dy] * len(self.branches), saved, ctx)


class Concat(Branches):
    """The outputs of branches side by side.

    Forward    y = (f₁(x), f₂(x), …)
    Backward   dx = Σ fᵢ′(dyᵢ)
    Shapes     fᵢ(x) (…, kᵢ), y (…, Σ kᵢ)
    Raises     ShapeError: other axes than the last differ.
    """

    fresh_output = True
    fresh_input_grad = True

    def joined(self, shapes: list[Shape]) -> Shape:
        """The sum of the last axes."""
        if len({shape[:-1] for shape in shapes}) > 1 or not all(shapes):
            raise ShapeError(
                f"{self.title} joins its branches along the last axis, but they give "
                f"{' and '.join(map(batched, shapes))}. Let the other axes be the same."
            )
        self._widths = [shape[-1] for shape in shapes]
        return (*shapes[0][:-1], sum(self._widths))

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """(f₁(x), f₂(x), …)"""
        ys, saved = self.run(x, ctx)
        return ctx.backend.xp.concat(ys, axis=-1), saved  # (…, kᵢ) -> (…, Σ kᵢ)

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """Σ fᵢ′(dyᵢ)"""
        ends = [sum(self._widths[: i + 1]) for i in range(len(self._widths))]
        parts = [dy[..., end - k : end] for end, k in zip(ends, self._widths, strict=True)]
        return self.summed(parts, saved, ctx)


def _sum(xp: Any, *terms: Array) -> Array:
    """The first, plus the second, plus …"""
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result
