"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from gpunet.backend import Array
from gpunet.context import Context
from gpunet.errors import ArgumentError
from gpunet.formula import random_bits
from gpunet.parameter import Parameter
from gpunet.pointwise import Pointwise


@dataclass(eq=False, kw_only=True, repr=False)
class Dropout(Pointwise):
    """In training, sets a fraction of the elements to zero and scales the others up, so that the mean stays.

    Forward    y = m x / (1 - rate),   m = 0 with probability rate, else 1
    Backward   dx = m dy / (1 - rate), with the same m, drawn again from the same key instead of stored
    Shapes     x, y (…, k)
    Raises     ArgumentError: rate outside [0, 1).

    Reference: Srivastava, Hinton, Krizhevsky, Sutskever, Salakhutdinov: Dropout (2014).
    """

    rate: float = field(kw_only=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.rate, Real) or not 0 <= self.rate < 1:
            raise ArgumentError(
                f"Dropout needs a rate in [0, 1), but got {self.rate!r}. 0.5 drops half of the elements."
            )

    def is_identity(self, ctx: Context) -> bool:
        """Outside training."""
        return not ctx.training or self.rate == 0

    def operands(self, ctx: Context) -> tuple[Parameter | Array, ...]:
        """The random key: seed, number of the draw, step."""
        return ctx.random_key()

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """y = m x / (1 - rate)"""
        kept = random_bits(x, *operands) >= min(round(self.rate * 2**32), 2**32 - 1)
        return xp.where(kept, x * (1 / (1 - self.rate)), 0.0)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dx = m dy / (1 - rate)"""
        return self.formula(xp, dy, *operands)
