"""Metrics of predictions over a whole data set, computed on the host."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from gpunet.backend import host
from gpunet.errors import ArgumentError
from gpunet.formula import dtype_name
from gpunet.losses import Loss


def accuracy(prediction: Any, target: Any, loss: Loss) -> float:
    """Fraction of labels that the loss's decision gets right: the largest logit, or the sign of a single one.

    Labels that the loss ignores do not count.

    Raises
        ArgumentError: the loss has no classes.
    """
    labels = loss.labels(prediction, host().xp)
    if labels is None:
        raise ArgumentError(f"accuracy needs classes, but {type(loss).__name__} has none. Leave the metric out.")
    right, counted = labels == loss.truth(target, host().xp), loss.counted(target)
    return float((right if counted is None else right[counted]).mean())


METRICS: dict[str, Callable[[Any, Any, Loss], float]] = {"accuracy": accuracy}


def evaluate(prediction: Any, target: Any, loss: Loss, names: list[str], sample_weight: Any = None) -> dict[str, float]:
    """{"loss": ..., metric: ...} of host predictions; the weights count for the loss alone."""
    on_host = copy.copy(loss).bind(host())  # the loss itself stays bound to the model's backend
    dtype = dtype_name(prediction.dtype)
    weight = None if sample_weight is None else host().asarray(sample_weight, dtype)
    value, _ = on_host(prediction, on_host.convert(target, host(), dtype), sample_weight=weight)
    return {"loss": float(value)} | {name: METRICS[name](prediction, target, loss) for name in names}
