"""Adagrad."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.optim.optimizer import Optimizer, Rate, decayed


@dataclass(eq=False, kw_only=True)
class Adagrad(Optimizer):
    """Gradients divided by the root of the sum of all their squares.

    Update     g ← g + weight_decay p      s ← s + g²
               p ← p - lr / (1 + (t - 1) lr_decay) · g / (√(s + initial_accumulator_value) + eps)
    Raises     ArgumentError: eps not positive, or another setting negative.

    The slot starts at zero like all of them; the initial value is added where it is read.

    Reference: Duchi, Hazan, Singer: Adaptive Subgradient Methods for Online Learning (2011).
    """

    learning_rate: Rate = field(default=1e-2, kw_only=False)
    lr_decay: float = 0.0
    weight_decay: float = 0.0
    initial_accumulator_value: float = 0.0
    eps: float = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(">= 0", "lr_decay", "weight_decay", "initial_accumulator_value")
        self._check("> 0", "eps")

    @property
    def slots(self) -> tuple[str, ...]:
        """Sum of squares."""
        return ("s",)

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p, s"""
        s, lr, t = rest
        g = decayed(g, p, self.weight_decay)
        s = s + g * g
        rate = lr / (1 + (t - 1) * self.lr_decay)
        return p - rate * g / (xp.sqrt(s + self.initial_accumulator_value) + self.eps), s
