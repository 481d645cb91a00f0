"""One spec for each loss: value and gradient by an independent formula."""

from __future__ import annotations

import numpy as np
from spec import LossSpec

from gpunet import losses


def normal(seed: int, *shape: int) -> np.ndarray:
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape)


def cross_entropy(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    onehot = np.eye(z.shape[-1])[y]
    log_p = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
    return -np.vdot(onehot, log_p) / y.size, (np.exp(log_p) - onehot) / y.size


def binary_cross_entropy(z: np.ndarray, t: np.ndarray) -> tuple[float, np.ndarray]:
    value = t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)
    return np.mean(value), (np.exp(-np.logaddexp(0, -z)) - t) / np.size(z)


def labels(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(5).integers(0, shape[-1], shape[:-1]).astype(np.int32)


LOSSES = [
    LossSpec("cross_entropy", losses.CrossEntropy, (6, 4), labels, cross_entropy),
    LossSpec("cross_entropy_time", losses.CrossEntropy, (3, 2, 4), labels, cross_entropy),
    LossSpec(
        "mean_squared_error",
        losses.MeanSquaredError,
        (6, 4),
        lambda s: normal(6, *s),
        lambda p, t: (np.square(p - t).mean(), 2 * (p - t) / p.size),
    ),
    LossSpec(
        "binary_cross_entropy",
        losses.BinaryCrossEntropy,
        (6, 4),
        lambda s: np.random.default_rng(6).random(s),
        binary_cross_entropy,
    ),
]
