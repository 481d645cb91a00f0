"""Embedding: a vector for each of many things."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from gpunet.backend import Array, Shape, host
from gpunet.context import Context
from gpunet.errors import ArgumentError, ArrayError
from gpunet.formula import dtype_kind, dtype_name, int32
from gpunet.initializers import Normal
from gpunet.layer import Layer, Saved
from gpunet.parameter import Initializer


@dataclass(eq=False, kw_only=True, repr=False)
class Embedding(Layer):
    """Rows of a trained table, looked up by index; the first layer of a model.

    Forward    y = W[x]
    Backward   dW[i] = Σ dy over all places where x = i, but 0 for the padding index; x has no gradient
    Shapes     x (…) integers in [0, entries)   W (entries, units)   y (…, units)
    Raises     ArgumentError: entries or units < 1, padding_index outside [0, entries).
               ArrayError: the input has no integers.

    padding_index  its row starts as zero, and gets no gradient
    An index out of range gives NaN, since finding it would cost a synchronisation; Trainer.fit and predict refuse it.
    The sum over equal indices has the order of the places, on every device: it is the same bits each time.

    Reference: Bengio, Ducharme, Vincent, Jauvin: A Neural Probabilistic Language Model (2003).
    """

    fresh_output = True

    entries: int = field(kw_only=False)
    units: int = field(kw_only=False)
    padding_index: int | None = None
    weight_init: Initializer = Normal(1.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, n in (("entries", self.entries), ("units", self.units)):
            if not isinstance(n, Integral) or n < 1:
                raise ArgumentError(f"Embedding needs a whole number of {name}, at least 1, but got {n!r}.")
        index = self.padding_index
        if index is not None and not (isinstance(index, Integral) and 0 <= index < self.entries):
            raise ArgumentError(
                f"Embedding needs a padding_index in [0, {self.entries}), but got {self.padding_index!r}. "
                "Keep an entry for it."
            )

    def setup(self, shape: Shape) -> Shape:
        """Declare the table."""
        self.weight = self.parameter("weight", (self.entries, self.units), self._initial)
        return (*shape, self.units)

    def _initial(self, seed: int, path: str, shape: Shape) -> Any:
        """The table, with a row of zeros for the padding index."""
        table = host().xp.array(self.weight_init(seed, path, shape))
        if self.padding_index is not None:
            table[self.padding_index] = 0
        return table

    def indices(self) -> int | None:
        """Of the entries."""
        return self.entries

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """y = W[x]"""
        if dtype_kind(x.dtype) != "int":
            raise ArrayError(
                f"{self.title} needs integer indices but got {dtype_name(x.dtype)}. Use x.astype('int32'), and make it "
                "the first layer."
            )
        x = int32(ctx.backend.xp, x)
        return ctx.backend.gather_rows(self.weight.value, x), x

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """dW[i] = Σ dy where x = i"""
        x, xp = saved, ctx.backend.xp
        if self.weight.trainable:
            if self.padding_index is not None:
                x = xp.where(x == self.padding_index, -1, x)  # out of range: added to no row
            out, accumulate = self.weight.grad_target()
            if not accumulate:
                out[...] = 0.0
            ctx.backend.scatter_add_rows(out, x, dy)
        return None
