"""Losses for distributions: counts, and probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpunet.backend import Array, Shape, host
from gpunet.errors import ArgumentError
from gpunet.formula import total
from gpunet.losses.regression import Elementwise


@dataclass(eq=False, kw_only=True)
class Poisson(Elementwise):
    """Negative log-likelihood of counts, up to what depends on them alone, mean over all elements.

    Forward    L = Σ (exp(z) - t z) / n
    Backward   dz = (exp(z) - t) / n
    Shapes     logarithms z (…) of the expected counts, counts t the same, float, >= 0; n the number of elements
    Raises     ArrayError: targets that are not floats.   ShapeError: shapes that differ.

    As the likelihood itself, it is infinite where exp(z) is: from z = 88.8 on in float32.

    Reference: Nelder, Wedderburn: Generalized Linear Models (1972).
    """

    def check_targets(self, target: Any, shape: Shape) -> None:
        """Refuse negative targets."""
        super().check_targets(target, shape)
        if target.size and not target.min() >= 0:
            raise ArgumentError(
                f"Poisson needs counts >= 0, but they go from {target.min()} to {target.max()}. "
                "For targets of either sign use MeanSquaredError()."
            )

    def random_target(self, shape: Shape, seed: int) -> Any:
        """Counts up to 4."""
        return host().xp.floor(5 * host().uniform(seed, "target", shape))

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """exp(z) - t z and exp(z) - t, weighted"""
        expected = xp.exp(prediction)
        return total((expected - target * prediction) * weight), (expected - target) * weight


@dataclass(eq=False, kw_only=True)
class KLDivergence(Elementwise):
    """Kullback-Leibler divergence of log-probabilities from target probabilities, mean over the rows.

    Forward    L = Σᵢⱼ tᵢⱼ (log tᵢⱼ - zᵢⱼ) / n, and 0 where tᵢⱼ = 0
    Backward   dz = -t / n
    Shapes     log-probabilities z (…, classes), probabilities t the same, float; n the number of rows
    Raises     ArrayError: targets that are not floats.   ShapeError: shapes that differ.

    For (n, classes) it is PyTorch's reduction="batchmean". Put LogSoftmax() at the end of the model.

    Reference: Kullback, Leibler: On Information and Sufficiency (1951).
    """

    def terms(self, shape: Shape) -> int:
        """Number of rows."""
        return math.prod(shape[:-1])

    def check_targets(self, target: Any, shape: Shape) -> None:
        """Refuse targets that are no probabilities."""
        super().check_targets(target, shape)
        check_probabilities("KLDivergence", target)

    def random_target(self, shape: Shape, seed: int) -> Any:
        """Rows that add up to 1."""
        t = host().uniform(seed, "target", shape)
        return t / t.sum(-1, keepdims=True)

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """t (log t - z) and -t, weighted"""
        term = xp.where(target == 0, 0.0, target * (xp.log(target) - prediction))
        return total(term * weight), -target * weight


def check_probabilities(loss: str, target: Any) -> None:
    """Refuse host targets whose rows are not in [0, 1] or do not add up to 1."""
    if not target.size:
        return
    if not (target.min() >= 0 and target.max() <= 1):
        raise ArgumentError(
            f"{loss} needs probabilities in [0, 1], but they go from {target.min()} to {target.max()}. "
            "Turn logits into probabilities by softmax."
        )
    sums = target.sum(-1)
    if not abs(sums - 1).max() <= 1e-2:
        raise ArgumentError(
            f"{loss} needs rows of probabilities that add up to 1, but the sums go from {sums.min()} to {sums.max()}. "
            "Divide each row by its sum."
        )
