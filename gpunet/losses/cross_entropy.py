"""Softmax cross-entropy, which takes logits: the activation is part of the loss, where it is numerically stable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from gpunet.backend import Array, Backend, Shape, host
from gpunet.errors import ArgumentError, ArrayError, ShapeError
from gpunet.formula import dtype_kind, dtype_name, index, int32, total
from gpunet.losses.distribution import check_probabilities
from gpunet.losses.loss import Loss

FLATTEN = " For one label an image, put a Flatten() before the first layer."


@dataclass(eq=False, kw_only=True)
class CrossEntropy(Loss):
    """Softmax cross-entropy of logits and integer labels, or probabilities, mean over the rows.

    Forward    L = Σᵢ wᵢ (log Σⱼ exp zᵢⱼ - zᵢ,yᵢ) / Σᵢ wᵢ,  wᵢ = c of class yᵢ; 1 by default, 0 for the ignored label;
               for probabilities L = -Σᵢⱼ cⱼ tᵢⱼ log softmax(zᵢ)ⱼ / n
    Backward   dz = w (softmax(z) - onehot(y)) / Σ w, for probabilities dz = (softmax(z) Σⱼ cⱼ tⱼ - c t) / n
    Shapes     logits z (…, classes); labels y (…) integers in [0, classes), or probabilities t (…, classes), float;
               class_weights c (classes,); n the number of rows
    Raises     ArgumentError: label_smoothing is not in [0, 1]; class_weights are no finite numbers >= 0, or all 0;
               ignore_label is no int32.
               ArrayError: targets of another type.   ShapeError: shapes that do not fit.

    label_smoothing ε takes t = (1 - ε) onehot(y) + ε / classes instead of labels, and for probabilities likewise; a row
    counts as wᵢ still. A batch of ignored labels alone has the loss 0.
    A label out of range gives NaN, since finding it would cost a synchronisation; Trainer.fit refuses it beforehand.

    Reference: Szegedy et al.: Rethinking the Inception Architecture for Computer Vision (2016), for the smoothing.
    """

    activation = "Softmax"

    label_smoothing: float = 0.0
    class_weights: Sequence[float] | Mapping[int, float] | None = None
    ignore_label: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing <= 1:
            raise ArgumentError(
                f"CrossEntropy needs label_smoothing in [0, 1], but got {self.label_smoothing!r}. 0.1 is usual."
            )
        if self.class_weights is not None:
            self.class_weights = _numbers(self.class_weights)
        if self.ignore_label is not None and not (
            isinstance(self.ignore_label, Integral) and -(2**31) < self.ignore_label < 2**31 - 1
        ):
            raise ArgumentError(f"CrossEntropy needs an ignore_label in int32, but got {self.ignore_label!r}. Use -1.")

    def prepare(self, target: Any, backend: Backend) -> Array:
        """Labels as int32 with an axis of their own: (…) -> (…, 1); probabilities as they are."""
        target = backend.asarray(target)
        if target.dtype != backend.xp.int32:
            kind = dtype_kind(target.dtype)
            if kind == "float":
                return target
            if kind != "int":
                raise self.not_labels(target)
            target = int32(backend.xp, target)
        return target[..., None]

    def convert(self, target: Any, backend: Backend, dtype: str) -> Array:
        """Integer labels as int32, converted where they are; probabilities in the prediction's type."""
        where = backend if backend.owns(target) else host()
        target = where.asarray(target)
        if target.dtype != where.xp.int32:
            kind = dtype_kind(target.dtype)
            if kind == "float":
                return super().convert(target, backend, dtype)
            target = int32(where.xp, target) if kind == "int" else target
        return target if where is backend else backend.asarray(target)

    def terms(self, shape: Shape) -> int:
        """Number of rows."""
        return math.prod(shape[:-1])

    def operands(self, shape: Shape, dtype: Any) -> tuple[Array, ...]:
        """The class weights, if there are any."""
        return () if self.class_weights is None else (self._classes(shape, dtype),)

    def count(self, operand: Array, shape: Shape, dtype: Any) -> int | Array:
        """Number of rows; of labels that do not count alike, Σ w."""
        if (self.class_weights is None and self.ignore_label is None) or dtype_kind(operand.dtype) == "float":
            return self.terms(shape)
        return self.bound.fused(self.sum_of_weights)(operand, self._classes(shape, dtype))

    def _classes(self, shape: Shape, dtype: Any) -> Array:
        """(classes,): the weight of each."""
        self.check_outputs(shape)
        return self.bound.constant(self.class_weights or (1.0,) * shape[-1], dtype)

    def check_outputs(self, shape: Shape) -> None:
        """Refuse logits of which there are not as many as class weights."""
        if self.class_weights is not None and shape[-1:] != (len(self.class_weights),):
            raise ShapeError(
                f"CrossEntropy has {len(self.class_weights)} class_weights, but got logits {shape}. Give "
                f"{shape[-1] if shape else 'no'} numbers, one for each class."
            )

    def share(self, target: Any) -> float:
        """Σ w of host labels that do not count alike; else the number of samples."""
        if (self.class_weights is None and self.ignore_label is None) or dtype_kind(target.dtype) == "float":
            return super().share(target)
        labels = target if self.ignore_label is None else target[self.counted(target)]
        if self.class_weights is None:
            return float(labels.size)
        xp = host().xp
        known = labels[(labels >= 0) & (labels < len(self.class_weights))]  # the loss of others is NaN
        return float(xp.sum(xp.take(xp.asarray(self.class_weights), known)))

    def check_operand(self, prediction: Array, operand: Array) -> None:
        """Labels must have the logits' leading axes, probabilities all of them."""
        if operand.dtype == self.bound.backend.xp.int32:
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
        self.check_outputs(shape)
        kind, same = dtype_kind(target.dtype), tuple(target.shape[1:]) == shape
        if kind == "float" and same:
            return check_probabilities("CrossEntropy", target)
        if kind != "int":
            raise self.not_labels(target)
        if same:
            raise self.not_probabilities(target)
        if tuple(target.shape[1:]) != shape[:-1]:
            raise self.mismatch((len(target), *shape), tuple(target.shape))
        counted = target if self.ignore_label is None else target[self.counted(target)]
        low, high = (int(counted.min()), int(counted.max())) if counted.size else (0, 0)
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

    def counted(self, target: Any) -> Any:
        """Labels that are not ignored."""
        if self.ignore_label is None or dtype_kind(target.dtype) == "float":
            return None
        return target != self.ignore_label

    def random_target(self, shape: Shape, seed: int) -> Any:
        """Labels in range."""
        xp = host().xp
        return xp.astype(host().uniform(seed, "target", shape[:-1]) * shape[-1], xp.int32)

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array, *classes: Array) -> tuple[Array, Array]:
        """log Σ exp z - z_y and softmax(z) - onehot(y), weighted"""
        if dtype_kind(target.dtype) == "float":  # types are known when a formula is traced: each is a kernel
            value, slope = self._of_probabilities(xp, prediction, target, *classes)
            return total(value * weight), slope * weight
        hit = index(prediction) == target
        one = xp.where(hit, 1.0, 0.0)
        known = xp.sum(one, axis=-1, keepdims=True)
        valid = known / known  # NaN where the label is out of range
        if self.label_smoothing:
            value, slope = self._of_probabilities(xp, prediction, one * valid, *classes)
        else:
            shifted = prediction - xp.max(prediction, axis=-1, keepdims=True)
            e = xp.exp(shifted)
            s = xp.sum(e, axis=-1, keepdims=True)
            picked = xp.sum(xp.where(hit, shifted, 0.0), axis=-1, keepdims=True)
            for c in classes:
                valid = valid * _picked(xp, hit, c)
            value, slope = (xp.log(s) - picked) * valid, (e / s - one) * valid
        if self.ignore_label is not None:
            ignored = target == self.ignore_label
            value, slope = xp.where(ignored, 0.0, value), xp.where(ignored, 0.0, slope)
        return total(value * weight), slope * weight

    def _of_probabilities(self, xp: Any, prediction: Array, t: Array, *classes: Array) -> tuple[Array, Array]:
        """Σ c t log Σ exp z - Σ c t z and softmax(z) Σ c t - c t; t smoothed first"""
        if self.label_smoothing:
            share = xp.mean(xp.where(index(prediction) == 0, 1.0, 0.0), axis=-1, keepdims=True)  # 1 / classes
            t = (1 - self.label_smoothing) * t + self.label_smoothing * share
        for c in classes:
            t = c * t
        shifted = prediction - xp.max(prediction, axis=-1, keepdims=True)
        e = xp.exp(shifted)
        s = xp.sum(e, axis=-1, keepdims=True)
        whole = xp.sum(t, axis=-1, keepdims=True)
        picked = xp.sum(xp.where(t == 0, 0.0, t * shifted), axis=-1, keepdims=True)  # 0 log 0 = 0
        return xp.log(s) * whole - picked, e / s * whole - t

    def sum_of_weights(self, xp: Any, target: Array, classes: Array) -> Array:
        """Σ w"""
        weight = _picked(xp, index(classes) == target, classes)
        if self.ignore_label is not None:
            weight = xp.where(target == self.ignore_label, 0.0, weight)
        return total(weight)


def _numbers(weights: Any) -> tuple[float, ...]:
    """The weights of classes 0, 1, …, from a sequence or from {class: weight}."""
    given = weights
    if isinstance(weights, Mapping) and set(weights) == set(range(len(weights))):
        given = [weights[label] for label in range(len(weights))]
    try:
        numbers = () if isinstance(given, Mapping | str) else tuple(float(c) for c in given)
    except (TypeError, ValueError):
        numbers = ()
    if not all(0 <= c < math.inf for c in numbers) or not any(numbers):
        raise ArgumentError(
            f"CrossEntropy needs finite class_weights >= 0, not all 0, one for each class, but got {weights!r}. "
            "n / (classes * count of a class) balances them."
        )
    return numbers


def _picked(xp: Any, hit: Array, classes: Array) -> Array:
    """The class weight of each row"""
    return xp.sum(xp.where(hit, classes, 0.0), axis=-1, keepdims=True)
