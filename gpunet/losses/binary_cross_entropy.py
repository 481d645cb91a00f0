"""Logistic cross-entropy, which takes logits: the activation is part of the loss, where it is numerically stable."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array, Backend, Shape, host
from gpunet.errors import ArgumentError
from gpunet.formula import dtype_kind, total
from gpunet.losses.loss import Loss
from gpunet.losses.regression import Elementwise


@dataclass(eq=False, kw_only=True)
class BinaryCrossEntropy(Elementwise):
    """Logistic cross-entropy of logits and probabilities, mean over all elements.

    Forward    L = Σ (w t log(1 + exp(-z)) + (1 - t) log(1 + exp(z))) / n
    Backward   dz = ((1 + (w - 1) t) sigmoid(z) - w t) / n
    Shapes     logits z (…), targets t the same, float in [0, 1]; n the number of elements
    Raises     ArgumentError: positive_weight is not a positive number.
               ArrayError: targets that are not floats.   ShapeError: shapes that differ.

    w is positive_weight: above 1 a missed positive costs more than a false one. It does not change n.
    """

    activation = "Sigmoid"

    positive_weight: float = field(default=1.0, kw_only=False)

    def __post_init__(self) -> None:
        if not 0 < self.positive_weight < math.inf:
            raise ArgumentError(
                f"BinaryCrossEntropy needs a finite positive_weight > 0, but got {self.positive_weight!r}. "
                "1.0 counts both classes alike; negatives / positives balances them."
            )

    def check_targets(self, target: Any, shape: Shape) -> None:
        """Refuse targets of another shape, or outside [0, 1]."""
        Loss.check_targets(self, target, shape)  # of any type: ``convert`` makes them floats
        if target.size and not (target.min() >= 0 and target.max() <= 1):
            raise ArgumentError(
                f"BinaryCrossEntropy needs targets in [0, 1], but they go from {target.min()} to {target.max()}. "
                "Use 0 and 1 for the two classes."
            )

    def convert(self, target: Any, backend: Backend, dtype: str) -> Array:
        """Targets on the backend; truth values and integers as floats."""
        where = backend if backend.owns(target) else host()
        target = where.asarray(target)
        if dtype_kind(target.dtype) != "float":
            target = where.asarray(target, dtype)
        return super().convert(target, backend, dtype)

    def labels(self, prediction: Any, xp: Any) -> Any:
        """1 where the logit is positive."""
        return prediction > 0

    def random_target(self, shape: Shape, seed: int) -> Any:
        """Probabilities."""
        return host().uniform(seed, "target", shape)

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """-z w t or z (1 - t), by the sign of z, + (1 + (w - 1) t) log(1 + exp(-|z|)); its derivative; both weighted"""
        z, t = prediction, target
        e = xp.exp(-xp.abs(z))  # in (0, 1]: neither sign of z overflows
        probability = xp.where(z < 0, e, 1.0) / (1 + e)
        positive, curved = t, xp.log1p(e)
        if self.positive_weight != 1:
            positive, both = self.positive_weight * t, 1 + (self.positive_weight - 1) * t
            curved, probability = both * curved, both * probability
        straight = xp.where(z < 0, -z * positive, z * (1 - t))  # max(z, 0) - z t, without its cancellation
        return total((straight + curved) * weight), (probability - positive) * weight
