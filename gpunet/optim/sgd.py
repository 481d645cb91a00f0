"""Stochastic gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array
from gpunet.errors import ArgumentError
from gpunet.optim.optimizer import Optimizer


@dataclass(eq=False, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    Update     m ← momentum m + g      p ← p - lr m
    Raises     ArgumentError: momentum outside [0, 1), or a negative learning rate.

    Reference: Sutskever, Martens, Dahl, Hinton: On the Importance of Initialization and Momentum (2013).
    """

    learning_rate: float = field(default=1e-3, kw_only=False)
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.momentum < 1:
            raise ArgumentError(f"SGD needs momentum in [0, 1), but got {self.momentum!r}.")

    @property
    def slots(self) -> tuple[str, ...]:
        """m; nothing without momentum."""
        return ("m",) if self.momentum else ()

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p - lr g, or p - lr m"""
        if not self.slots:
            lr, _ = rest
            return (p - lr * g,)
        m, lr, _ = rest
        m = self.momentum * m + g
        return p - lr * m, m
