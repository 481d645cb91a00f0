"""Metrics of predictions over a whole data set, computed on the host.

Each is (prediction, target, loss) -> float, of all samples at once: never a mean over batches. Decisions are those of
the loss: CrossEntropy decides for one of the classes, BinaryCrossEntropy and Hinge for every element of the prediction
between negative and positive; a target above 0.5 is positive. Precision, recall and F₁ are those of the positive class,
or with several classes the mean over the classes that occur in truth or decisions. Labels that the loss ignores do not
count; where nothing counts, a metric is NaN.

Raises     ArgumentError: the metric needs classes, and the loss has none, or the other way round; labels out of range.
           ShapeError, ArrayError: a target that does not fit, as in the loss.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

from gpunet.backend import host
from gpunet.errors import ArgumentError
from gpunet.formula import dtype_name
from gpunet.losses import Loss

Metric: TypeAlias = Callable[[Any, Any, Loss], float]
Metrics: TypeAlias = Mapping[str, Metric] | Sequence[str | Metric]


def accuracy(prediction: Any, target: Any, loss: Loss) -> float:
    """Fraction of labels that the loss's decision gets right: the largest logit, or the sign of a single one.

    A = (number of yᵢ = dᵢ) / n, of truth y and decisions d.
    """
    truth, decided, _ = _decisions("accuracy", prediction, target, loss)
    return _divide((truth == decided).sum(), truth.size)


def precision(prediction: Any, target: Any, loss: Loss) -> float:
    """Of the decisions for a class, the fraction that is right.

    P = (right decisions for the class) / (decisions for it), 0 where there are none.
    """
    right, decided, _ = _counts("precision", prediction, target, loss)
    return _mean_ratio(right, decided)


def recall(prediction: Any, target: Any, loss: Loss) -> float:
    """Of the samples of a class, the fraction that is found.

    R = (right decisions for the class) / (labels of it), 0 where there are none.
    """
    right, _, present = _counts("recall", prediction, target, loss)
    return _mean_ratio(right, present)


def f1(prediction: Any, target: Any, loss: Loss) -> float:
    """Harmonic mean of a class's precision and recall.

    F₁ = 2 (right decisions for the class) / (decisions for it + labels of it), 0 where there are none.

    Reference: van Rijsbergen: Information Retrieval (1979).
    """
    right, decided, present = _counts("f1", prediction, target, loss)
    return _mean_ratio(2 * right, decided + present)


def mae(prediction: Any, target: Any, loss: Loss) -> float:
    """Mean absolute error, over all elements: Σ |p - t| / n, in the target's units.

    p is the prediction as the loss takes it: for Poisson and KLDivergence a logarithm, not what t measures.
    """
    error, _, counted = _numbers("mae", prediction, target, loss)
    return _divide(abs(error).sum(), counted.sum())


def rmse(prediction: Any, target: Any, loss: Loss) -> float:
    """Root of the mean squared error, over all elements: √(Σ (p - t)² / n), in the target's units. p as in ``mae``.

    scikit-learn's root_mean_squared_error takes the root for each output, before the mean over them.
    """
    error, _, counted = _numbers("rmse", prediction, target, loss)
    return math.sqrt(_divide((error * error).sum(), counted.sum()))


def r2(prediction: Any, target: Any, loss: Loss) -> float:
    """Coefficient of determination, at most 1; always predicting the mean has 0. p as in ``mae``.

    R² = 1 - Σ (p - t)² / Σ (t - mean t)² of each output, which is an index of the last axis; then the mean over them.
    An output whose targets are all equal has 1 if p = t throughout, else 0. Of fewer than two samples it is NaN.

    Reference: Wright: Correlation and Causation (1921).
    """
    xp = host().xp
    error, t, counted = _numbers("r2", prediction, target, loss)
    n = xp.sum(counted, axis=0)  # (k,)
    if not n.size or n.min() < 2:
        return math.nan
    highest = xp.max(xp.where(counted, t, -math.inf), axis=0)
    shifted = xp.where(counted, t - highest, 0.0)  # equal targets become 0, so that a mean's rounding is no variation
    centred = xp.where(counted, shifted - xp.sum(shifted, axis=0) / n, 0.0)
    rest, total = xp.sum(error * error, axis=0), xp.sum(centred * centred, axis=0)
    varies = total > 0
    scores = xp.where(~varies & (rest > 0), 0.0, 1 - rest / xp.where(varies, total, 1.0))
    return float(xp.mean(scores))


@dataclass(frozen=True)
class TopK:
    """Fraction of labels whose class is among the k with the largest logits: ``metrics=[TopK(5)]`` reports "top_5".

    A label counts as found where fewer than k classes have a logit strictly larger than its own: a tie is in its
    favour, so that equal logits find every label. scikit-learn decides ties by the order of the classes instead.

    Raises     ArgumentError: k is no whole number >= 1; called for fewer classes, or a loss of two-valued decisions.
    """

    k: int

    def __post_init__(self) -> None:
        if not isinstance(self.k, Integral) or self.k < 1:
            raise ArgumentError(f"TopK needs a whole number k, at least 1, but got {self.k!r}. 5 is usual.")

    @property
    def name(self) -> str:
        """What it is reported as."""
        return f"top_{self.k}"

    def __call__(self, prediction: Any, target: Any, loss: Loss) -> float:
        """Logits (…, classes), labels (…) or probabilities (…, classes) -> (number found) / n."""
        xp = host().xp
        truth, _, binary = _decisions(self.name, prediction, target, loss)
        if binary or self.k > prediction.shape[-1]:
            has = "one for both" if binary else prediction.shape[-1]
            raise ArgumentError(
                f"{self.name} needs logits of {max(self.k, 2)} classes or more, but {type(loss).__name__} has {has}. "
                "Use accuracy, or a smaller k."
            )
        counted = loss.counted(target)
        logits = prediction if counted is None else prediction[counted]  # (m, classes)
        own = xp.take_along_axis(logits, xp.astype(truth, xp.int64)[..., None], axis=-1)  # (…, 1)
        found = xp.sum(~(logits <= own), axis=-1) < self.k  # a NaN is no small logit
        return _divide(found.sum(), found.size)


def confusion_matrix(prediction: Any, target: Any, loss: Loss) -> Any:
    """How often each class was taken for each: (classes, classes) int64, rows the truth, columns the decisions.

    With two-valued decisions it is (2, 2), negative before positive. No metric for a Trainer: that reports numbers.
    """
    truth, decided, binary = _decisions("confusion_matrix", prediction, target, loss)
    classes = 2 if binary else prediction.shape[-1]
    return host().xp.reshape(_occurrences(truth * classes + decided, classes * classes), (classes, classes))


METRICS: dict[str, Metric] = {f.__name__: f for f in (accuracy, precision, recall, f1, mae, rmse, r2)}


def resolve(metrics: Sequence[str | Metric]) -> dict[str, Metric]:
    """{name: metric} of names in METRICS and of callables, whose name is their ``name``, else their ``__name__``.

    Raises     ArgumentError: an unknown name, a callable without one, or two of one name; "loss" is taken.
    """
    found: dict[str, Metric] = {}
    for metric in [metrics] if isinstance(metrics, str) else metrics:
        function = METRICS.get(metric) if isinstance(metric, str) else metric
        if not callable(function):
            raise ArgumentError(f"there is no metric {metric!r}. Use one of: {', '.join(METRICS)}.")
        name = getattr(function, "name", getattr(function, "__name__", None))
        if not isinstance(name, str):
            raise ArgumentError(f"a metric needs a name, but {metric!r} has none. Give it a `name` or use a function.")
        if name in found or name == "loss":
            raise ArgumentError(f"each metric needs a name of its own, but '{name}' is there twice. Leave one out.")
        found[name] = function
    return found


def evaluate(prediction: Any, target: Any, loss: Loss, metrics: Metrics, sample_weight: Any = None) -> dict[str, float]:
    """{"loss": ..., metric: ...} of host predictions, metrics as in ``resolve``; weights count for the loss alone."""
    metrics = metrics if isinstance(metrics, Mapping) else resolve(metrics)
    on_host = copy.copy(loss).bind(host())  # the loss itself stays bound to the model's backend
    dtype = dtype_name(prediction.dtype)
    weight = None if sample_weight is None else host().asarray(sample_weight, dtype)
    value, _ = on_host(prediction, on_host.convert(target, host(), dtype), sample_weight=weight)
    return {"loss": float(value)} | {name: float(metric(prediction, target, loss)) for name, metric in metrics.items()}


def _decisions(metric: str, prediction: Any, target: Any, loss: Loss) -> tuple[Any, Any, bool]:
    """(truth, decisions): int64 classes of the labels that count, (…) or (m,); and whether they are 0 and 1."""
    xp = host().xp
    decided = loss.labels(prediction, xp)
    if decided is None:
        raise ArgumentError(f"{metric} needs classes, but {type(loss).__name__} has none. Leave the metric out.")
    _check(prediction, target, loss)
    truth, counted, binary = loss.truth(target, xp), loss.counted(target), decided.shape == prediction.shape
    if binary:  # truth values, 0 and 1, -1 and 1, or probabilities
        truth, decided = truth > 0.5, decided > 0.5
    if counted is not None:
        truth, decided = truth[counted], decided[counted]
    return xp.astype(truth, xp.int64), xp.astype(decided, xp.int64), binary


def _counts(metric: str, prediction: Any, target: Any, loss: Loss) -> tuple[Any, Any, Any]:
    """(right decisions, decisions, labels) of each class that is averaged, (m,) int64."""
    truth, decided, binary = _decisions(metric, prediction, target, loss)
    classes = 2 if binary else prediction.shape[-1]
    right, chosen, present = (_occurrences(c, classes) for c in (truth[truth == decided], decided, truth))
    averaged = slice(1, 2) if binary and truth.size else chosen + present > 0
    return right[averaged], chosen[averaged], present[averaged]


def _numbers(metric: str, prediction: Any, target: Any, loss: Loss) -> tuple[Any, Any, Any]:
    """(p - t, t, which count): float64 (rows, outputs) with 0 for what does not count, and truth values."""
    xp = host().xp
    if loss.labels(prediction, xp) is not None:
        raise ArgumentError(f"{metric} needs numbers, but {type(loss).__name__} has classes. Use accuracy instead.")
    _check(prediction, target, loss)
    outputs = prediction.shape[-1] if prediction.ndim > 1 else 1
    p, t = (xp.astype(xp.reshape(a, (-1, outputs)), xp.float64) for a in (prediction, target))
    counted = loss.counted(target)
    counted = xp.ones(t.shape, dtype=xp.bool) if counted is None else xp.reshape(counted, (-1, outputs))
    return xp.where(counted, p - t, 0.0), xp.where(counted, t, 0.0), counted


def _check(prediction: Any, target: Any, loss: Loss) -> None:
    """Refuse targets that do not fit: they would be broadcast, or counted as classes that are not there."""
    if prediction.shape[:1] != target.shape[:1]:
        raise loss.mismatch(tuple(prediction.shape), tuple(target.shape))
    loss.check_targets(target, tuple(prediction.shape[1:]))


def _occurrences(numbers: Any, n: int) -> Any:
    """(n,) int64: how often each of range(n) is among the numbers."""
    xp = host().xp
    values, times = xp.unique_counts(numbers)
    result = xp.zeros(n, dtype=xp.int64)
    result[values] = times
    return result


def _mean_ratio(part: Any, whole: Any) -> float:
    """Mean of part / whole, 0 where whole is 0."""
    return _divide((part / host().xp.maximum(whole, 1)).sum(), whole.size)


def _divide(total: Any, n: int) -> float:
    """NaN for nothing."""
    return float(total) / int(n) if n else math.nan
