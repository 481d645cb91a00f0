"""Adam."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.optim.optimizer import Optimizer, Rate, decayed, one_minus_power


@dataclass(eq=False, kw_only=True)
class Adam(Optimizer):
    """Adaptive moment estimation.

    Update     g ← g + weight_decay p
               m ← β₁ m + (1 - β₁) g      v ← β₂ v + (1 - β₂) g²      u ← max(u, v)
               p ← p - lr / (1 - β₁ᵗ) · m / (√v / √(1 - β₂ᵗ) + eps), with amsgrad u instead of v
    Raises     ArgumentError: beta1 or beta2 outside [0, 1), eps not positive, weight_decay or learning_rate negative.

    Reference: Kingma, Ba: Adam: A Method for Stochastic Optimization (2014);
    amsgrad: Reddi, Kale, Kumar: On the Convergence of Adam and Beyond (2018).
    """

    learning_rate: Rate = field(default=1e-3, kw_only=False)
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("in [0, 1)", "beta1", "beta2")
        self._check("> 0", "eps")  # at 0 a gradient that is always zero, and padding, would become 0 / 0
        self._check(">= 0", "weight_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        """First and second moment; with amsgrad the largest second moment so far, too."""
        return ("m", "v", "u") if self.amsgrad else ("m", "v")

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p, m, v, or p, m, v, u"""
        return self._step(xp, p, decayed(g, p, self.weight_decay), *rest)

    def _step(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """The update without weight decay."""
        m, v, *largest, lr, t = rest
        m = self.beta1 * m + (1 - self.beta1) * g
        v = self.beta2 * v + (1 - self.beta2) * (g * g)
        largest = [xp.maximum(u, v) for u in largest]
        correction1 = one_minus_power(xp, self.beta1, t)
        correction2 = xp.sqrt(one_minus_power(xp, self.beta2, t))
        rate, eps = lr * correction2 / correction1, self.eps * correction2  # 0-d: computed once, not per element
        return p - rate * m / (xp.sqrt(largest[0] if largest else v) + eps), m, v, *largest
