"""Adam with Nesterov momentum."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.optim.optimizer import Optimizer, Rate, decayed, one_minus_power

TERMS = 50
"""Of the series of log(1 - a), which has a ≤ 1/2 here: the rest is below 1e-16."""


@dataclass(eq=False, kw_only=True)
class NAdam(Optimizer):
    """Adam that looks one step ahead, with a momentum that grows from β₁ / 2 to β₁.

    Update     g ← g + weight_decay p, or with decoupled_weight_decay p ← (1 - lr weight_decay) p
               m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²
               μₜ = β₁ (1 - 0.96^(t momentum_decay) / 2)      Π = μ₁ ⋯ μₜ
               p ← p - lr ((1 - μₜ) / (1 - Π) · g + μₜ₊₁ / (1 - Π μₜ₊₁) · m) / (√(v / (1 - β₂ᵗ)) + eps)
    Raises     ArgumentError: beta1 or beta2 outside [0, 1), eps not positive, weight_decay, momentum_decay or
               learning_rate negative.

    Reference: Dozat: Incorporating Nesterov Momentum into Adam (2016).
    """

    learning_rate: Rate = field(default=2e-3, kw_only=False)
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum_decay: float = 4e-3
    decoupled_weight_decay: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("in [0, 1)", "beta1", "beta2")
        self._check("> 0", "eps")
        self._check(">= 0", "weight_decay", "momentum_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        """First and second moment."""
        return ("m", "v")

    def once(self, xp: Any, t: Array) -> Array:
        """Π = β₁ᵗ ∏ (1 - qⁱ / 2), q = 0.96^momentum_decay, without a running product that a checkpoint would hold.

        log(1 - a) = -Σ aᵏ / k, and the sum of (qⁱ / 2)ᵏ over i = 1 … t is a geometric one.
        """
        if self.beta1 == 0:
            return 0 * t
        log_q, log_product = self.momentum_decay * math.log(0.96), t * math.log(self.beta1)
        for k in range(1, TERMS + 1):
            if log_q:
                powers = xp.expm1(k * log_q * t) * (math.exp(k * log_q) / math.expm1(k * log_q))
            else:
                powers = t
            log_product = log_product - 0.5**k / k * powers
        return xp.exp(log_product)

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p, m, v"""
        m, v, lr, t, product = rest
        if self.decoupled_weight_decay:
            p = (1 - lr * self.weight_decay) * p
        else:
            g = decayed(g, p, self.weight_decay)
        m = self.beta1 * m + (1 - self.beta1) * g
        v = self.beta2 * v + (1 - self.beta2) * (g * g)
        now, ahead = self._momentum(xp, t), self._momentum(xp, t + 1)
        correction = xp.sqrt(one_minus_power(xp, self.beta2, t))
        rate, eps = lr * correction, self.eps * correction  # 0-d: computed once, not per element
        of_g, of_m = rate * (1 - now) / (1 - product), rate * ahead / (1 - product * ahead)
        return p - (of_g * g + of_m * m) / (xp.sqrt(v) + eps), m, v

    def _momentum(self, xp: Any, t: Array) -> Array:
        """μₜ"""
        return self.beta1 * (1 - 0.5 * xp.exp(t * (self.momentum_decay * math.log(0.96))))
