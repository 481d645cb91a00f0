"""Rectified Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.optim.optimizer import Optimizer, Rate, decayed, one_minus_power


@dataclass(eq=False, kw_only=True)
class RAdam(Optimizer):
    """Adam that starts as momentum and divides by √v once enough gradients stand behind v.

    Update     g ← g + weight_decay p      m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²
               ρ∞ = 2 / (1 - β₂) - 1       ρ = ρ∞ - 2 t β₂ᵗ / (1 - β₂ᵗ)
               r = √((ρ - 4) (ρ - 2) ρ∞ / ((ρ∞ - 4) (ρ∞ - 2) ρ)) √(1 - β₂ᵗ) / (√v + eps) where ρ > 5, else 1
               p ← p - lr / (1 - β₁ᵗ) · m r
    Raises     ArgumentError: beta1 or beta2 outside [0, 1), eps not positive, weight_decay or learning_rate negative.

    Reference: Liu et al.: On the Variance of the Adaptive Learning Rate and Beyond (2020).
    """

    learning_rate: Rate = field(default=1e-3, kw_only=False)
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("in [0, 1)", "beta1", "beta2")
        self._check("> 0", "eps")
        self._check(">= 0", "weight_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        """First and second moment."""
        return ("m", "v")

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p, m, v"""
        m, v, lr, t = rest
        g = decayed(g, p, self.weight_decay)
        m = self.beta1 * m + (1 - self.beta1) * g
        v = self.beta2 * v + (1 - self.beta2) * (g * g)
        rate, most = lr / one_minus_power(xp, self.beta1, t), 2 / (1 - self.beta2) - 1
        if most <= 5:  # ρ stays below
            return p - rate * m, m, v
        length = sample_length(xp, self.beta2, t)
        square = (length - 4) * (length - 2) / length * (most / ((most - 4) * (most - 2)))
        scale = xp.sqrt(xp.maximum(square, 0.0) * one_minus_power(xp, self.beta2, t))
        return p - rate * m * xp.where(length > 5, scale / (xp.sqrt(v) + self.eps), 1.0), m, v


def sample_length(xp: Any, beta: float, t: Array) -> Any:
    """ρ = 2 / (1 - β) - 1 - 2 t βᵗ / (1 - βᵗ), whose plain form loses 1e-4 in float32 where ρ is small.

    With L = -ln β and y = t L / 2 it is 2 / (1 - β) - 1 - 2 / L + t - 2 / L · (y coth y - 1),
    and Gauss's continued fraction gives y coth y - 1 = y² / (3 + y² / (5 + y² / (7 + …))).
    """
    rate, most = -math.log(beta), 2 / (1 - beta) - 1
    y2 = xp.square(0.5 * rate * t)
    fraction = 15.0
    for odd in (13.0, 11.0, 9.0, 7.0, 5.0, 3.0):
        fraction = odd + y2 / fraction
    early = (most - 2 / rate) + t - 2 / rate * (y2 / fraction)
    late = most - 2 * t / xp.expm1(rate * t)
    return xp.where(rate * t < 1, early, late)
