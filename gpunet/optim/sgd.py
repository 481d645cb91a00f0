"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.errors import ArgumentError
from gpunet.optim.optimizer import Optimizer, Rate, decayed


@dataclass(eq=False, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    Update     g ← g + weight_decay p
               m ← momentum m + (1 - dampening) g, at the first step m ← g
               p ← p - lr m, with nesterov p ← p - lr (g + momentum m)
    Raises     ArgumentError: momentum or dampening outside [0, 1), weight_decay or learning_rate negative;
               dampening or nesterov without momentum, or both.

    Reference: Sutskever, Martens, Dahl, Hinton: On the Importance of Initialization and Momentum (2013).
    """

    learning_rate: Rate = field(default=1e-3, kw_only=False)
    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check("in [0, 1)", "momentum", "dampening")
        self._check(">= 0", "weight_decay")
        if not self.momentum and (self.dampening or self.nesterov):
            raise ArgumentError(
                f"SGD needs momentum for dampening or nesterov, but got momentum={self.momentum!r}. Try momentum=0.9."
            )
        if self.nesterov and self.dampening:
            raise ArgumentError(
                f"SGD needs dampening = 0 for nesterov, but got {self.dampening!r}. Leave one of the two out."
            )

    @property
    def slots(self) -> tuple[str, ...]:
        """m; nothing without momentum."""
        return ("m",) if self.momentum else ()

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p, or p, m"""
        *_, lr, t = rest
        g = decayed(g, p, self.weight_decay)
        if not self.slots:
            return (p - lr * g,)
        new = xp.where(t > 1, 1 - self.dampening, 1.0) * g if self.dampening else g
        m = self.momentum * rest[0] + new
        return p - lr * (g + self.momentum * m if self.nesterov else m), m
