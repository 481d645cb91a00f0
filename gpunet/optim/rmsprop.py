"""RMSprop."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.optim.optimizer import Optimizer, Rate, decayed


@dataclass(eq=False, kw_only=True)
class RMSprop(Optimizer):
    """Gradients divided by the root of their running mean square.

    Update     g ← g + weight_decay p      v ← α v + (1 - α) g²      d = g / (√v + eps)
               p ← p - lr d, with momentum b ← momentum b + d and p ← p - lr b
    Centered   a ← α a + (1 - α) g, and the variance v - a², at least 0, in place of v
    Raises     ArgumentError: alpha or momentum outside [0, 1), eps not positive, weight_decay or learning_rate
               negative.

    Reference: Tieleman, Hinton: Lecture 6.5, Neural Networks for Machine Learning (2012);
    centered: Graves: Generating Sequences with Recurrent Neural Networks (2013).
    """

    learning_rate: Rate = field(default=1e-2, kw_only=False)
    alpha: float = 0.99
    eps: float = 1e-8
    centered: bool = False
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("in [0, 1)", "alpha", "momentum")
        self._check("> 0", "eps")
        self._check(">= 0", "weight_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        """Mean square; if centered the mean, too; with momentum its buffer."""
        return ("v", *["a"] * self.centered, *["b"] * (self.momentum > 0))

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p and the slots"""
        *kept, lr, _ = rest
        old = dict(zip(self.slots, kept, strict=True))
        g = decayed(g, p, self.weight_decay)
        new = {"v": self.alpha * old["v"] + (1 - self.alpha) * (g * g)}
        square = new["v"]
        if self.centered:
            new["a"] = self.alpha * old["a"] + (1 - self.alpha) * g
            square = xp.maximum(square - new["a"] * new["a"], 0.0)  # rounding may make it negative
        d = g / (xp.sqrt(square) + self.eps)
        if self.momentum:
            d = new["b"] = self.momentum * old["b"] + d
        return (p - lr * d, *new.values())
