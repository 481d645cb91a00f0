"""A small training step that is captured, and batches for it."""

from __future__ import annotations

import numpy as np

from gpunet import layers, losses, optim
from gpunet.train.step import TrainStep

WARM = 2


def network(backend, *extra, dtype="float32"):
    parts = [layers.Dense(16), layers.ReLU(), layers.Dropout(0.2), *extra, layers.Dense(8), layers.Tanh()]
    model = layers.Sequential(*parts, layers.Dropout(0.1), layers.Dense(3))
    return model.build((5,), device=backend, dtype=dtype)


def batches(count, n=8):
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((n, 5)).astype(np.float32) for _ in range(count)]
    return [(x, np.argmax(x[:, :3], axis=-1)) for x in inputs]


def make(backend, *extra, **options):
    return TrainStep(network(backend, *extra), losses.CrossEntropy(), optim.Adam(1e-2), seed=7, **options)


def warm(backend, *extra, **options):
    """A step that has been recorded, the counters at zero."""
    step = make(backend, *extra, **options)
    for x, y in batches(WARM + 3):
        step(x, y)
    backend.cupy.reset()
    return step
