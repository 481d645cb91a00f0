"""One spec for each loss: value and gradient by an independent formula."""

from __future__ import annotations

import numpy as np
from spec import LossSpec

from gpunet import losses


def normal(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Normal numbers."""
    return np.random.default_rng(seed).standard_normal(shape)


def cross_entropy(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    onehot = np.eye(z.shape[-1])[y]
    log_p = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
    return -np.vdot(onehot, log_p) / y.size, (np.exp(log_p) - onehot) / y.size


def weighted_cross_entropy(
    z: np.ndarray, y: np.ndarray, weights: list[float], ignored: int = 99, smoothing: float = 0.0
) -> tuple[float, np.ndarray]:
    """Row by row; a row counts as the weight of its label."""
    c, classes = np.array(weights), z.shape[-1]
    value, gradient, n = 0.0, np.zeros_like(z), 0.0
    for place, label in np.ndenumerate(y):
        if label != ignored:
            t = c * ((1 - smoothing) * np.eye(classes)[label] + smoothing / classes)
            log_p = z[place] - np.logaddexp.reduce(z[place])
            value, n = value - t @ log_p, n + c[label]
            gradient[place] = np.exp(log_p) * t.sum() - t
    return (value / n, gradient / n) if n else (0.0, 0 * gradient)  # nothing counts: no cost


def of_probabilities(z: np.ndarray, t: np.ndarray, smoothing: float = 0.0) -> tuple[float, np.ndarray]:
    t = t + smoothing * (1 / z.shape[-1] - t)
    log_p = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
    n = z.size / z.shape[-1]
    return -np.vdot(t, log_p) / n, (np.exp(log_p) * t.sum(-1, keepdims=True) - t) / n


def binary_cross_entropy(z: np.ndarray, t: np.ndarray, w: float = 1.0) -> tuple[float, np.ndarray]:
    value = w * t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)
    slope = (1 - t) * np.exp(-np.logaddexp(0, -z)) - w * t * np.exp(-np.logaddexp(0, z))
    return np.mean(value), slope / np.size(z)


def hinge(p: np.ndarray, t: np.ndarray) -> tuple[float, np.ndarray]:
    short = np.clip(1 - t * p, 0, None)
    return short.mean(), -t * np.sign(short) / p.size


def kl_divergence(z: np.ndarray, t: np.ndarray) -> tuple[float, np.ndarray]:
    n = z.size / z.shape[-1]
    known = t > 0
    return np.vdot(t[known], np.log(t[known]) - z[known]) / n, -t / n


def cosine_similarity(p: np.ndarray, t: np.ndarray) -> tuple[float, np.ndarray]:
    n = p.size / p.shape[-1]
    dot, pp, tt = (np.einsum("...k,...k->...", a, b)[..., None] for a, b in [(p, t), (p, p), (t, t)])
    return np.sum(1 - dot / np.sqrt(pp * tt)) / n, (dot * p / pp - t) / np.sqrt(pp * tt) / n


def huber(p: np.ndarray, t: np.ndarray, delta: float) -> tuple[float, np.ndarray]:
    e = p - t
    inside = np.abs(e) < delta
    value = np.where(inside, np.square(e) / 2, delta * (np.abs(e) - delta / 2))
    return value.mean(), np.where(inside, e, delta * np.sign(e)) / e.size


def sides(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.where(normal(shape, seed) < 0, -1.0, 1.0)


def fractions(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape)


def counts(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(2.0, shape).astype(np.float64)


def probabilities(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """The first class is impossible."""
    t = np.random.default_rng(seed).random(shape)
    t[..., 0] = 0
    return t / t.sum(-1, keepdims=True)


def labels(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, shape[-1], shape[:-1]).astype(np.int32)


def some_ignored(shape: tuple[int, ...], seed: int) -> np.ndarray:
    ignored = np.arange(np.prod(shape[:-1])).reshape(shape[:-1]) % 3 == 1
    return np.where(ignored, -1, labels(shape, seed)).astype(np.int32)


CLASSES = [0.5, 2.0, 0.0, 1.0]
LOSSES = [
    LossSpec(
        "cross_entropy_class_weights",
        lambda: losses.CrossEntropy(class_weights=CLASSES),
        (6, 4),
        labels,
        lambda z, y: weighted_cross_entropy(z, y, CLASSES),
    ),
    LossSpec(
        "cross_entropy_ignored",
        lambda: losses.CrossEntropy(ignore_label=-1),
        (3, 2, 4),
        some_ignored,
        lambda z, y: weighted_cross_entropy(z, y, [1.0] * 4, -1),
    ),
    LossSpec(
        "cross_entropy_everything",
        lambda: losses.CrossEntropy(class_weights=CLASSES, ignore_label=-1, label_smoothing=0.1),
        (6, 4),
        some_ignored,
        lambda z, y: weighted_cross_entropy(z, y, CLASSES, -1, 0.1),
    ),
    LossSpec(
        "cross_entropy_probabilities_class_weights",
        lambda: losses.CrossEntropy(class_weights=CLASSES),
        (6, 4),
        probabilities,
        lambda z, t: of_probabilities(z, t * CLASSES),
    ),
    LossSpec("cross_entropy", losses.CrossEntropy, (6, 4), labels, cross_entropy),
    LossSpec("cross_entropy_time", losses.CrossEntropy, (3, 2, 4), labels, cross_entropy),
    LossSpec(
        "cross_entropy_smoothed",
        lambda: losses.CrossEntropy(label_smoothing=0.1),
        (6, 4),
        labels,
        lambda z, y: of_probabilities(z, np.eye(4)[y], 0.1),
    ),
    LossSpec("cross_entropy_probabilities", losses.CrossEntropy, (3, 2, 4), probabilities, of_probabilities),
    LossSpec(
        "cross_entropy_probabilities_smoothed",
        lambda: losses.CrossEntropy(label_smoothing=0.1),
        (6, 4),
        probabilities,
        lambda z, t: of_probabilities(z, t, 0.1),
    ),
    LossSpec(
        "mean_squared_error",
        losses.MeanSquaredError,
        (6, 4),
        normal,
        lambda p, t: (np.square(p - t).mean(), 2 * (p - t) / p.size),
    ),
    LossSpec(
        "mean_absolute_error",
        losses.MeanAbsoluteError,
        (6, 4),
        normal,
        lambda p, t: (np.abs(p - t).mean(), np.where(p > t, 1, -1) / p.size),
    ),
    LossSpec("huber", losses.Huber, (6, 4), normal, lambda p, t: huber(p, t, 1.0)),
    LossSpec("huber_narrow", lambda: losses.Huber(0.3), (3, 2, 4), normal, lambda p, t: huber(p, t, 0.3)),
    LossSpec(
        "smooth_l1",
        lambda: losses.SmoothL1(0.5),
        (6, 4),
        normal,
        lambda p, t: tuple(2 * x for x in huber(p, t, 0.5)),
    ),
    LossSpec(
        "binary_cross_entropy",
        losses.BinaryCrossEntropy,
        (6, 4),
        fractions,
        binary_cross_entropy,
    ),
    LossSpec(
        "binary_cross_entropy_weighted",
        lambda: losses.BinaryCrossEntropy(3.0),
        (6, 4),
        fractions,
        lambda z, t: binary_cross_entropy(z, t, 3.0),
    ),
    LossSpec("hinge", losses.Hinge, (6, 4), sides, hinge),
    LossSpec(
        "poisson",
        losses.Poisson,
        (6, 4),
        counts,
        lambda z, t: (np.mean(np.exp(z) - t * z), (np.exp(z) - t) / z.size),
    ),
    LossSpec("kl_divergence", losses.KLDivergence, (6, 4), probabilities, kl_divergence),
    LossSpec("kl_divergence_time", losses.KLDivergence, (3, 2, 4), probabilities, kl_divergence),
    LossSpec("cosine_similarity", losses.CosineSimilarity, (6, 4), normal, cosine_similarity),
    LossSpec("cosine_similarity_time", losses.CosineSimilarity, (3, 2, 4), normal, cosine_similarity),
]
