"""Adadelta."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.optim.optimizer import Optimizer, Rate, decayed


@dataclass(eq=False, kw_only=True)
class Adadelta(Optimizer):
    """Gradients in the units of the weights: scaled by the root mean square of steps over that of gradients.

    Update     g ← g + weight_decay p      v ← ρ v + (1 - ρ) g²      d = √(u + eps) / √(v + eps) · g
               u ← ρ u + (1 - ρ) d²        p ← p - lr d
    Raises     ArgumentError: rho outside [0, 1), eps not positive, weight_decay or learning_rate negative.

    Reference: Zeiler: ADADELTA: An Adaptive Learning Rate Method (2012).
    """

    learning_rate: Rate = field(default=1.0, kw_only=False)
    rho: float = 0.9
    eps: float = 1e-6
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("in [0, 1)", "rho")
        self._check("> 0", "eps")
        self._check(">= 0", "weight_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        """Mean square of the gradients, and of the steps."""
        return ("v", "u")

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p, v, u"""
        v, u, lr, _ = rest
        g = decayed(g, p, self.weight_decay)
        v = self.rho * v + (1 - self.rho) * (g * g)
        d = xp.sqrt(u + self.eps) / xp.sqrt(v + self.eps) * g
        return p - lr * d, v, self.rho * u + (1 - self.rho) * (d * d)
