"""Adam with decoupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunet.backend import Array
from gpunet.optim.adam import Adam


@dataclass(eq=False, kw_only=True)
class AdamW(Adam):
    """Adam whose weight decay stays out of the moments.

    Update     p ← (1 - lr weight_decay) p, then Adam's update without weight decay
    Raises     ArgumentError: as Adam.

    Reference: Loshchilov, Hutter: Decoupled Weight Decay Regularization (2019).
    """

    weight_decay: float = 1e-2

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """p, m, v, or p, m, v, u"""
        lr = rest[-2]
        return self._step(xp, (1 - lr * self.weight_decay) * p, g, *rest)
