"""The chain rule: layers one after another, forward and backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gpunet.backend import Array, Backend

if TYPE_CHECKING:
    from gpunet.context import Context
    from gpunet.layer import Layer


class Chain:
    """Parts in a row.

    run       what is executed: the parts, with runs of Pointwise ones merged
    unmerged  what is executed while the context observes; None: a layer's inner parts are not shown
    """

    def __init__(self, parts: Sequence[Layer], backend: Backend, unmerged: Sequence[Layer] | None = None):
        from gpunet.pointwise import merge

        self.run = merge(parts, backend)
        self.unmerged = None if unmerged is None else list(unmerged)
        self._first: tuple[tuple[int, bool], int] | None = None

    def forward(self, x: Array, ctx: Context) -> tuple[Array, list[Any]]:
        """y = f_n(... f_1(x))."""
        saved = []
        observe = None if self.unmerged is None else ctx.observe
        for layer in self._running(ctx):
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
        running = self._running(ctx)
        key = (ctx.version, running is self.run)
        if self._first is None or self._first[0] != key:
            place = next((i for i, layer in enumerate(running) if layer.trainable()), len(running))
            self._first = (key, place)
        return self._first[1]

    def _running(self, ctx: Context) -> list[Layer]:
        return self.run if ctx.observe is None or self.unmerged is None else self.unmerged
