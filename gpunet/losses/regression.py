"""Losses for numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array, Backend, Shape, host
from gpunet.errors import ArgumentError, ArrayError
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
    Raises     ArrayError: targets that are not floats.   ShapeError: shapes that differ.
    """

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """(p - t)² and 2 (p - t), weighted"""
        error = prediction - target
        return total(error * error * weight), 2 * error * weight


@dataclass(eq=False, kw_only=True)
class MeanAbsoluteError(Elementwise):
    """Mean of absolute differences, over all elements: less moved by outliers than their squares.

    Forward    L = Σ |p - t| / n
    Backward   dp = sign(p - t) / n, 0 where p = t
    Shapes     prediction p (…), target t the same, float; n the number of elements
    Raises     ArrayError: targets that are not floats.   ShapeError: shapes that differ.
    """

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """|p - t| and its sign, weighted"""
        error = prediction - target
        return total(xp.abs(error) * weight), xp.sign(error) * weight


@dataclass(eq=False, kw_only=True)
class Huber(Elementwise):
    """Squares of small differences, absolute values of large ones, mean over all elements.

    Forward    L = Σ h(p - t) / n,  h(e) = e² / 2 where |e| < δ, else δ (|e| - δ / 2)
    Backward   dp = clip(p - t, -δ, δ) / n
    Shapes     prediction p (…), target t the same, float; n the number of elements
    Raises     ArgumentError: delta is not a positive number.
               ArrayError: targets that are not floats.   ShapeError: shapes that differ.

    Reference: Huber: Robust Estimation of a Location Parameter (1964).
    """

    delta: float = field(default=1.0, kw_only=False)

    def __post_init__(self) -> None:
        if not 0 < self.delta < math.inf:
            raise ArgumentError(
                f"Huber needs a finite delta > 0, but got {self.delta!r}. "
                "MeanAbsoluteError() and MeanSquaredError() are the two ends."
            )

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """m (|e| - m / 2), m = min(|e|, δ), and e clipped, weighted"""
        value, slope = _huber(xp, prediction - target, self.delta)
        return total(value * weight), slope * weight


@dataclass(eq=False, kw_only=True)
class SmoothL1(Elementwise):
    """Absolute differences, rounded off below β, mean over all elements: Huber with δ = β, divided by β.

    Forward    L = Σ s(p - t) / n,  s(e) = e² / 2β where |e| < β, else |e| - β / 2
    Backward   dp = clip((p - t) / β, -1, 1) / n
    Shapes     prediction p (…), target t the same, float; n the number of elements
    Raises     ArgumentError: beta is not a positive number.
               ArrayError: targets that are not floats.   ShapeError: shapes that differ.

    Reference: Girshick: Fast R-CNN (2015).
    """

    beta: float = field(default=1.0, kw_only=False)

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise ArgumentError(
                f"SmoothL1 needs a finite beta > 0, but got {self.beta!r}. For 0 use MeanAbsoluteError()."
            )

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """Huber's terms with δ = β, divided by β, weighted"""
        value, slope = _huber(xp, prediction - target, self.beta)
        return total(value / self.beta * weight), slope / self.beta * weight


def _huber(xp: Any, error: Array, delta: float) -> tuple[Array, Array]:
    """Terms and their derivative: e² / 2 where |e| < δ, else δ (|e| - δ / 2). No square that could overflow."""
    size = xp.abs(error)
    near = xp.minimum(size, delta)
    return near * (size - near / 2), xp.maximum(xp.minimum(error, delta), -delta)
