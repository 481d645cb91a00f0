"""The chain rule: layers one after another, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpunet.backend import Array, Backend

if TYPE_CHECKING:
    from gpunet.layer import Context, Layer


class Chain:
    """Parts in a row. ``run`` is what is executed: the parts with runs of Pointwise ones merged."""

    def __init__(self, parts: Sequence[Layer], backend: Backend, unmerged: Sequence[Layer] | None = None):
        from gpunet.pointwise import merge

        self.run = merge(parts, backend)
        self.unmerged = list(parts if unmerged is None else unmerged)
        self._first: tuple[int, int, int] | None = None

    def forward(self, x: Array, ctx: Context) -> tuple[Array, list[Any]]:
        """y = f_n(... f_1(x))."""
        saved = []
        observe = ctx.observe
        for layer in self.run if observe is None else self.unmerged:
            x, kept = layer.forward(x, ctx)
            saved.append((layer, kept))
            if observe is not None:
                observe(layer, x)
        return x, saved

    def backward(self, dy: Array, saved: list[Any], ctx: Context) -> Array | None:
        """dx = f_1'(... f_n'(dy)), back to the first layer that needs a gradient."""
        first = 0 if ctx.needs_input_grad else self._first_trainable(ctx)
        inner = ctx.inner()
        for i in range(len(saved) - 1, first - 1, -1):
            layer, kept = saved[i]
            dy = layer.backward(dy, kept, ctx if i == first else inner)
        return dy if ctx.needs_input_grad else None

    def _first_trainable(self, ctx: Context) -> int:
        if self._first is None or self._first[0] != ctx.version:
            places = [
                next((i for i, layer in enumerate(run) if layer.trainable()), len(run))
                for run in (self.run, self.unmerged)
            ]
            self._first = (ctx.version, places[0], places[1])
        return self._first[1 if ctx.observe is None else 2]
