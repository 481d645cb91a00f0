"""Losses for numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpunet.backend import Array, Backend, Shape, host
from gpunet.errors import ArrayError
from gpunet.formula import dtype_kind, dtype_name, total
from gpunet.losses.loss import Loss


@dataclass(eq=False, kw_only=True)
class Elementwise(Loss):
    """Base of losses that compare prediction and target element by element: float targets of the prediction's shape."""

    def prepare(self, target: Any, backend: Backend) -> Array:
        """As it is; integers would be compared in another type."""
        target = backend.asarray(target)
        if dtype_kind(target.dtype) != "float":
            raise ArrayError(
                f"{type(self).__name__} needs float targets but got {dtype_name(target.dtype)}. "
                'Use y.astype("float32").'
            )
        return target

    def check_targets(self, target: Any, shape: Shape) -> None:
        """Refuse targets of another shape, or that are not floats."""
        super().check_targets(target, shape)
        self.prepare(target, host())


@dataclass(eq=False, kw_only=True)
class MeanSquaredError(Elementwise):
    """Mean of squared differences, over all elements.

    Forward    L = Σ (p - t)² / n
    Backward   dp = 2 (p - t) / n
    Shapes     prediction p (…), target t the same, float; n the number of elements
    """

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """(p - t)² and 2 (p - t), weighted"""
        error = prediction - target
        return total(error * error * weight), 2 * error * weight
