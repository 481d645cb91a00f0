"""Lion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.optim.optimizer import Optimizer, Rate


@dataclass(eq=False, kw_only=True)
class Lion(Optimizer):
    """Steps of one size: the sign of a mixture of momentum and gradient.

    Update     p ← p - lr (sign(β₁ m + (1 - β₁) g) + weight_decay p)      m ← β₂ m + (1 - β₂) g
    Raises     ArgumentError: beta1 or beta2 outside [0, 1), weight_decay or learning_rate negative.

    Reference: Chen et al.: Symbolic Discovery of Optimization Algorithms (2023).
    """

    learning_rate: Rate = field(default=1e-4, kw_only=False)
    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("in [0, 1)", "beta1", "beta2")
        self._check(">= 0", "weight_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        """Momentum."""
        return ("m",)

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p, m"""
        m, lr, _ = rest
        direction = xp.sign(self.beta1 * m + (1 - self.beta1) * g)
        if self.weight_decay:
            direction = direction + self.weight_decay * p
        return p - lr * direction, self.beta2 * m + (1 - self.beta2) * g
