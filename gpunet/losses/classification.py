"""Losses for classes. They take logits: the activation is part of the loss, where it is numerically stable."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from gpunet.backend import Array, Backend, Shape, host
from gpunet.errors import ArgumentError, ArrayError, ShapeError
from gpunet.formula import dtype_kind, dtype_name, index, total
from gpunet.losses.distribution import check_probabilities
from gpunet.losses.loss import Loss
from gpunet.losses.regression import Elementwise

FLATTEN = " For one label an image, put a Flatten() before the first layer."


@dataclass(eq=False, kw_only=True)
class CrossEntropy(Loss):
    """Softmax cross-entropy of logits and integer labels, or probabilities, mean over the rows.

    Forward    L = Σᵢ (log Σⱼ exp zᵢⱼ - zᵢ,yᵢ) / n, for probabilities L = -Σᵢⱼ tᵢⱼ log softmax(zᵢ)ⱼ / n
    Backward   dz = (softmax(z) - onehot(y)) / n, for probabilities dz = (softmax(z) Σⱼ tⱼ - t) / n
    Shapes     logits z (…, classes); labels y (…) integers in [0, classes), or probabilities t (…, classes), float;
               n the number of rows
    Raises     ArgumentError: label_smoothing is not in [0, 1].
               ArrayError: targets of another type.   ShapeError: shapes that do not fit.

    label_smoothing ε takes t = (1 - ε) onehot(y) + ε / classes instead of labels, and for probabilities likewise.
    A label out of range gives NaN, since finding it would cost a synchronisation; Trainer.fit refuses it beforehand.

    Reference: Szegedy et al.: Rethinking the Inception Architecture for Computer Vision (2016), for the smoothing.
    """

    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing <= 1:
            raise ArgumentError(
                f"CrossEntropy needs label_smoothing in [0, 1], but got {self.label_smoothing!r}. 0.1 is usual."
            )

    def prepare(self, target: Any, backend: Backend) -> Array:
        """Labels as int32 with an axis of their own: (…) -> (…, 1); probabilities as they are."""
        target = backend.asarray(target)
        kind = dtype_kind(target.dtype)
        if kind == "float":
            return target
        if kind != "int":
            raise self.not_labels(target)
        return (target if dtype_name(target.dtype) == "int32" else _narrow(target, backend))[..., None]

    def convert(self, target: Any, backend: Backend, dtype: str) -> Array:
        """Integer labels as int32, converted where they are; probabilities in the prediction's type."""
        where = backend if backend.owns(target) else host()
        target = where.asarray(target)
        if dtype_name(target.dtype) != "int32":
            kind = dtype_kind(target.dtype)
            if kind == "float":
                return super().convert(target, backend, dtype)
            target = _narrow(target, where) if kind == "int" else target
        return target if where is backend else backend.asarray(target)

    def terms(self, shape: Shape) -> int:
        """Number of rows."""
        return math.prod(shape[:-1])

    def check_operand(self, prediction: Array, operand: Array) -> None:
        """Labels must have the logits' leading axes, probabilities all of them."""
        assert self._backend is not None  # bound by the call
        if operand.dtype == self._backend.xp.int32:
            if operand.shape[:-1] == prediction.shape:
                raise self.not_probabilities(operand)
            if prediction.shape[:-1] != operand.shape[:-1] or not prediction.shape:
                raise self.mismatch(tuple(prediction.shape), tuple(operand.shape[:-1]))
        elif operand.shape != prediction.shape:
            if operand.shape == prediction.shape[:-1]:
                raise self.not_labels(operand)
            raise self.mismatch(tuple(prediction.shape), tuple(operand.shape))

    def mismatch(self, prediction: Shape, target: Shape) -> ShapeError:
        """The error for a target that does not fit."""
        return ShapeError(
            f"CrossEntropy needs logits (…, classes) and labels (…), but got {prediction} and {target}. "
            f"Labels of shape {prediction[:-1]} would fit." + (FLATTEN if len(prediction) > len(target) + 1 else "")
        )

    def not_labels(self, target: Array) -> ArrayError:
        """The error for a type that is not the labels'."""
        return ArrayError(
            f"CrossEntropy needs integer labels but got {dtype_name(target.dtype)}. Use y.astype('int32'); "
            "one-hot rows become labels by y.argmax(-1)."
        )

    def not_probabilities(self, target: Array) -> ArrayError:
        """The error for integers of the logits' shape."""
        return ArrayError(
            f"CrossEntropy needs float targets but got {dtype_name(target.dtype)} of the logits' shape. "
            "One-hot rows become labels by y.argmax(-1), or probabilities by y.astype('float32')."
        )

    def check_targets(self, target: Any, shape: Shape) -> None:
        """Refuse labels that are no integers in [0, classes), and rows that are no probabilities."""
        kind, same = dtype_kind(target.dtype), tuple(target.shape[1:]) == shape
        if kind == "float" and same:
            return check_probabilities("CrossEntropy", target)
        if kind != "int":
            raise self.not_labels(target)
        if same:
            raise self.not_probabilities(target)
        if tuple(target.shape[1:]) != shape[:-1]:
            raise self.mismatch((len(target), *shape), tuple(target.shape))
        low, high = (int(target.min()), int(target.max())) if target.size else (0, 0)
        if low < 0 or high >= shape[-1]:
            raise ArgumentError(
                f"labels must be in [0, {shape[-1]}), the number of outputs, but they go from {low} to {high}. "
                "Count classes from 0, or give the last layer more units."
            )

    def labels(self, prediction: Any, xp: Any) -> Any:
        """The class with the largest logit."""
        return xp.argmax(prediction, axis=-1)

    def truth(self, target: Any, xp: Any) -> Any:
        """Labels; of probabilities, the likeliest class."""
        return xp.argmax(target, axis=-1) if dtype_kind(target.dtype) == "float" else target

    def random_target(self, shape: Shape, seed: int) -> Any:
        """Labels in range."""
        xp = host().xp
        return xp.astype(host().uniform(seed, "target", shape[:-1]) * shape[-1], xp.int32)

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """log Σ exp z - z_y and softmax(z) - onehot(y), weighted"""
        if dtype_kind(target.dtype) == "float":  # types are known when a formula is traced: each is a kernel
            return self.of_probabilities(xp, prediction, target, weight)
        shifted = prediction - xp.max(prediction, axis=-1, keepdims=True)
        e = xp.exp(shifted)
        s = xp.sum(e, axis=-1, keepdims=True)
        hit = index(prediction) == target
        one = xp.where(hit, 1.0, 0.0)
        known = xp.sum(one, axis=-1, keepdims=True)
        valid = known / known  # NaN where the label is out of range
        if self.label_smoothing:
            return self.of_probabilities(xp, prediction, one * valid, weight)
        picked = xp.sum(xp.where(hit, shifted, 0.0), axis=-1, keepdims=True)
        return total((xp.log(s) - picked) * valid * weight), (e / s - one) * valid * weight

    def of_probabilities(self, xp: Any, prediction: Array, t: Array, weight: Array) -> tuple[Array, Array]:
        """Σ t log Σ exp z - Σ t z and softmax(z) Σ t - t, weighted; t smoothed first"""
        if self.label_smoothing:
            share = xp.mean(xp.where(index(prediction) == 0, 1.0, 0.0), axis=-1, keepdims=True)  # 1 / classes
            t = (1 - self.label_smoothing) * t + self.label_smoothing * share
        shifted = prediction - xp.max(prediction, axis=-1, keepdims=True)
        e = xp.exp(shifted)
        s = xp.sum(e, axis=-1, keepdims=True)
        whole = xp.sum(t, axis=-1, keepdims=True)
        picked = xp.sum(xp.where(t == 0, 0.0, t * shifted), axis=-1, keepdims=True)  # 0 log 0 = 0
        return total((xp.log(s) * whole - picked) * weight), (e / s * whole - t) * weight


def _narrow(labels: Array, backend: Backend) -> Array:
    """Integers as int32; labels past int32 must not wrap into range."""
    return backend.xp.astype(backend.xp.clip(labels, -1, 2**31 - 1), backend.xp.int32)


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

    positive_weight: float = field(default=1.0, kw_only=False)

    def __post_init__(self) -> None:
        if not 0 < self.positive_weight < math.inf:
            raise ArgumentError(
                f"BinaryCrossEntropy needs a finite positive_weight > 0, but got {self.positive_weight!r}. "
                "1.0 counts both classes alike; negatives / positives balances them."
            )

    def check_targets(self, target: Any, shape: Shape) -> None:
        """Refuse targets outside [0, 1]."""
        super().check_targets(target, shape)
        if target.size and not (target.min() >= 0 and target.max() <= 1):
            raise ArgumentError(
                f"BinaryCrossEntropy needs targets in [0, 1], but they go from {target.min()} to {target.max()}. "
                "Use 0 and 1 for the two classes."
            )

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
