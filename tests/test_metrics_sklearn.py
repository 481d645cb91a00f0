"""Metrics against scikit-learn's, where that is installed."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet import losses, metrics

sk = pytest.importorskip("sklearn.metrics")

SEEDS = range(20)


def expected(truth, decided, **options):
    """What scikit-learn says of decisions."""
    options = {"zero_division": 0} | options
    scores = [f(truth, decided, **options) for f in (sk.precision_score, sk.recall_score, sk.f1_score)]
    return [sk.accuracy_score(truth, decided), *scores]


def found(names, *args):
    return [metrics.METRICS[name](*args) for name in names]


CLASSES, NUMBERS = ("accuracy", "precision", "recall", "f1"), ("mae", "rmse", "r2")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("classes", "n"), [(2, 40), (5, 60), (12, 15)])  # 12 classes and 15 samples: some are absent
def test_several_classes(seed, classes, n):
    rng = np.random.default_rng(seed)
    z, y = rng.standard_normal((n, classes)).astype(np.float32), rng.integers(0, classes, n)
    z[np.arange(n), y] += 1
    loss, decided = losses.CrossEntropy(), z.argmax(-1)
    assert found(CLASSES, z, y, loss) == pytest.approx(expected(y, decided, average="macro"), abs=1e-12)
    matrix = sk.confusion_matrix(y, decided, labels=range(classes))
    assert np.array_equal(metrics.confusion_matrix(z, y, loss), matrix)
    for k in range(1, classes if classes > 2 else 1):
        score = sk.top_k_accuracy_score(y, z, k=k, labels=range(classes))
        assert metrics.TopK(k)(z, y, loss) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("ignored", [-1, 2, 100])
def test_sequences_with_ignored_labels(seed, ignored):
    rng = np.random.default_rng(seed)
    z, y = rng.standard_normal((6, 7, 4)), rng.integers(0, 4, (6, 7))
    y[rng.random(y.shape) < 0.4] = ignored
    kept = y != ignored
    loss, decided = losses.CrossEntropy(ignore_label=ignored), z.argmax(-1)
    assert found(CLASSES, z, y, loss) == pytest.approx(expected(y[kept], decided[kept], average="macro"), abs=1e-12)
    matrix = sk.confusion_matrix(y[kept], decided[kept], labels=range(4))
    assert np.array_equal(metrics.confusion_matrix(z, y, loss), matrix)
    score = sk.top_k_accuracy_score(y[kept], z[kept], k=2, labels=range(4))
    assert metrics.TopK(2)(z, y, loss) == pytest.approx(score, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(30, 1), (12, 3)])
def test_two_values(seed, share, shape):
    rng = np.random.default_rng(seed)
    z, y = rng.standard_normal(shape), rng.random(shape) < share
    scores = expected(y.ravel(), z.ravel() > 0)
    for loss, target in ((losses.BinaryCrossEntropy(), y * 1.0), (losses.Hinge(), 2.0 * y - 1)):
        assert found(CLASSES, z, target, loss) == pytest.approx(scores, abs=1e-12)
        matrix = sk.confusion_matrix(y.ravel(), z.ravel() > 0, labels=[False, True])
        assert np.array_equal(metrics.confusion_matrix(z, target, loss), matrix)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shape", [(50,), (50, 1), (50, 4), (2, 1)])
@pytest.mark.parametrize("constant", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers(seed, shape, constant, dtype):
    rng = np.random.default_rng(seed)
    t = (100 + rng.standard_normal(shape)).astype(dtype)
    p = (t + 0.3 * rng.standard_normal(shape)).astype(dtype)
    if constant:
        t[..., -1:] = 100  # an output; of (50,), a single sample. Of 100.1 scikit-learn's mean differs, and r2 is -1e25
    if seed % 4 == 0:
        p[..., -1:] = t[..., -1:]
    wide = [a.astype(np.float64) for a in (t, p)]
    scores = [sk.mean_absolute_error(*wide), np.sqrt(sk.mean_squared_error(*wide)), sk.r2_score(*wide)]
    assert found(NUMBERS, p, t, losses.MeanSquaredError()) == pytest.approx(scores, rel=1e-9, abs=1e-9)
