"""Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.errors import ArgumentError
from gpunet.optim.optimizer import Optimizer


@dataclass(eq=False, kw_only=True)
class Adam(Optimizer):
    """Adaptive moment estimation.

    Update     m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²
               p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps)
    Raises     ArgumentError: beta1 or beta2 outside [0, 1), eps or learning_rate negative.

    Reference: Kingma, Ba: Adam: A Method for Stochastic Optimization (2014).
    """

    learning_rate: float = field(default=1e-3, kw_only=False)
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ArgumentError(f"Adam needs {name} in [0, 1), but got {getattr(self, name)!r}.")
        if not self.eps >= 0:
            raise ArgumentError(f"Adam needs eps >= 0, but got {self.eps!r}.")

    @property
    def slots(self) -> tuple[str, ...]:
        """First and second moment."""
        return ("m", "v")

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p, m, v"""
        m, v, lr, t = rest
        m = self.beta1 * m + (1 - self.beta1) * g
        v = self.beta2 * v + (1 - self.beta2) * (g * g)
        correction1 = one_minus_power(xp, self.beta1, t)
        correction2 = xp.sqrt(one_minus_power(xp, self.beta2, t))
        rate, eps = lr * correction2 / correction1, self.eps * correction2  # 0-d: computed once, not per element
        return p - rate * m / (xp.sqrt(v) + eps), m, v


def one_minus_power(xp: Any, beta: float, t: Array) -> Any:
    """1 - βᵗ; the plain form loses 1e-5 in float32."""
    return -xp.expm1(t * math.log(beta)) if beta > 0 else 1 + 0 * t
