"""Losses for classes. They take logits: the activation is part of the loss, where it is numerically stable."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpunet.backend import Array, Backend, Shape, host
from gpunet.errors import ArgumentError, ArrayError, ShapeError
from gpunet.formula import dtype_kind, dtype_name, index, total
from gpunet.losses.loss import Loss
from gpunet.losses.regression import Elementwise

FLATTEN = " For one label an image, put a Flatten() before the first layer."


@dataclass(eq=False, kw_only=True)
class CrossEntropy(Loss):
    """Softmax cross-entropy of logits and integer labels, mean over the labels.

    Forward    L = Σᵢ (log Σⱼ exp zᵢⱼ - zᵢ,yᵢ) / n
    Backward   dz = (softmax(z) - onehot(y)) / n
    Shapes     logits z (…, classes), labels y (…) integers in [0, classes); n the number of labels
    Raises     ArrayError: labels that are not integers.   ShapeError: shapes that do not fit.

    A label out of range gives NaN, since finding it would cost a synchronisation; Trainer.fit refuses it beforehand.
    """

    def prepare(self, target: Any, backend: Backend) -> Array:
        """Labels as int32 with an axis of their own: (…) -> (…, 1)"""
        target = backend.asarray(target)
        if dtype_kind(target.dtype) != "int":
            raise ArrayError(
                f"CrossEntropy needs integer labels but got {dtype_name(target.dtype)}. Use y.astype('int32'); "
                "one-hot rows become labels by y.argmax(-1)."
            )
        return (target if dtype_name(target.dtype) == "int32" else _narrow(target, backend))[..., None]

    def convert(self, target: Any, backend: Backend, dtype: str) -> Array:
        """Integer labels as int32, converted where they are."""
        where = backend if backend.owns(target) else host()
        target = where.asarray(target)
        if dtype_name(target.dtype) != "int32" and dtype_kind(target.dtype) == "int":
            target = _narrow(target, where)
        return target if where is backend else backend.asarray(target)

    def terms(self, shape: Shape) -> int:
        """Number of labels."""
        return math.prod(shape[:-1])

    def check_operand(self, prediction: Array, operand: Array) -> None:
        """Labels must have the logits' leading axes."""
        if prediction.shape[:-1] != operand.shape[:-1] or not prediction.shape:
            raise self.mismatch(tuple(prediction.shape), tuple(operand.shape[:-1]))

    def mismatch(self, prediction: Shape, target: Shape) -> ShapeError:
        """The error for labels that do not fit."""
        return ShapeError(
            f"CrossEntropy needs logits (…, classes) and labels (…), but got {prediction} and {target}. "
            f"Labels of shape {prediction[:-1]} would fit." + (FLATTEN if len(prediction) > len(target) + 1 else "")
        )

    def check_targets(self, target: Any, shape: Shape) -> None:
        """Refuse labels that are no integers in [0, classes)."""
        if dtype_kind(target.dtype) != "int":
            self.prepare(target, host())  # raises, with the remedy
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

    def random_target(self, shape: Shape, seed: int) -> Any:
        """Labels in range."""
        xp = host().xp
        return xp.astype(host().uniform(seed, "target", shape[:-1]) * shape[-1], xp.int32)

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """log Σ exp z - z_y and softmax(z) - onehot(y), weighted"""
        shifted = prediction - xp.max(prediction, axis=-1, keepdims=True)
        e = xp.exp(shifted)
        s = xp.sum(e, axis=-1, keepdims=True)
        hit = index(prediction) == target
        one = xp.where(hit, 1.0, 0.0)
        known = xp.sum(one, axis=-1, keepdims=True)
        valid = known / known  # NaN where the label is out of range
        picked = xp.sum(xp.where(hit, shifted, 0.0), axis=-1, keepdims=True)
        return total((xp.log(s) - picked) * valid * weight), (e / s - one) * valid * weight


def _narrow(labels: Array, backend: Backend) -> Array:
    """Integers as int32; labels past int32 must not wrap into range."""
    return backend.xp.astype(backend.xp.clip(labels, -1, 2**31 - 1), backend.xp.int32)


@dataclass(eq=False, kw_only=True)
class BinaryCrossEntropy(Elementwise):
    """Logistic cross-entropy of logits and probabilities, mean over all elements.

    Forward    L = Σ (t log(1 + exp(-z)) + (1 - t) log(1 + exp(z))) / n
    Backward   dz = (sigmoid(z) - t) / n
    Shapes     logits z (…), targets t the same, float in [0, 1]; n the number of elements
    """

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
        """-z t or z (1 - t), by the sign of z, + log(1 + exp(-|z|)); sigmoid(z) - t; both weighted"""
        z, t = prediction, target
        e = xp.exp(-xp.abs(z))  # in (0, 1]: neither sign of z overflows
        probability = xp.where(z < 0, e, 1.0) / (1 + e)
        straight = xp.where(z < 0, -z * t, z * (1 - t))  # max(z, 0) - z t, without its cancellation
        return total((straight + xp.log1p(e)) * weight), (probability - t) * weight
