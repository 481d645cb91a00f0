"""Losses for two classes that are content with a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunet.backend import Array, Shape, host
from gpunet.errors import ArgumentError
from gpunet.formula import total
from gpunet.losses.regression import Elementwise


@dataclass(eq=False, kw_only=True)
class Hinge(Elementwise):
    """How far scores fall short of a margin of 1 on the right side, mean over all elements.

    Forward    L = Σ max(0, 1 - t p) / n
    Backward   dp = -t / n where t p < 1, else 0
    Shapes     scores p (…), targets t the same, float, -1 or 1; n the number of elements
    Raises     ArrayError: targets that are not floats.   ShapeError: shapes that differ.

    PyTorch has it as MarginRankingLoss(margin=1) of p, 0 and t. Its HingeEmbeddingLoss takes distances instead, its
    MultiMarginLoss one score a class. Targets of 0 and 1 become -1 and 1 by 2 * y - 1.

    Reference: Cortes, Vapnik: Support-Vector Networks (1995).
    """

    def check_targets(self, target: Any, shape: Shape) -> None:
        """Refuse targets other than -1 and 1."""
        super().check_targets(target, shape)
        if not (abs(target) == 1).all():
            raise ArgumentError(
                f"Hinge needs targets of -1 and 1, but they go from {target.min()} to {target.max()}, "
                "or have others between. Classes 0 and 1 become these by 2 * y - 1."
            )

    def labels(self, prediction: Any, xp: Any) -> Any:
        """1 where the score is positive, else -1."""
        return xp.where(prediction > 0, 1.0, -1.0)

    def random_target(self, shape: Shape, seed: int) -> Any:
        """Either class."""
        return host().xp.where(host().uniform(seed, "target", shape) < 0.5, -1.0, 1.0)

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """max(0, 1 - t p), and -t where that is not 0, weighted"""
        short = 1 - target * prediction
        return total(xp.maximum(short, 0.0) * weight), xp.where(short <= 0, 0.0, -target) * weight
