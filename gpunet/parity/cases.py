"""Small training runs to begin with, by name: those of the golden recordings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from gpunet import data, datasets, layers, losses, optim
from gpunet.backend import host
from gpunet.layers.sequential import Sequential
from gpunet.losses import Loss
from gpunet.optim import Optimizer

SEED, STEPS, SAMPLES = 7, 6, 32
Parts = tuple[Sequential, Loss, Optimizer, list[tuple[Any, ...]]]
"""Model, loss, optimizer, batches: what ``record`` and ``compare`` take."""


def digits() -> Parts:
    """Images of digits, one hidden layer."""
    (x, y), _ = datasets.digits()
    xp = host().xp
    x = xp.astype(x, xp.float16)  # exact: sixteenths
    batches = list(data.batches(x, y, SAMPLES, seed=SEED, epoch=0))[:STEPS]
    model = layers.Sequential(layers.Dense(16), layers.ReLU(), layers.Dense(10))
    return model, losses.CrossEntropy(), optim.Adam(5e-3), batches


def regularised() -> Parts:
    """GELU, dropout and layer normalisation; several outputs of 0 or 1 each."""
    parts = [layers.Dense(24), layers.LayerNorm(), layers.GELU(), layers.Dropout(0.2)]
    model = layers.Sequential(*parts, *copy.deepcopy(parts), layers.Dense(3))
    return model, losses.BinaryCrossEntropy(), optim.AdamW(5e-3), _uniform(12, 3)


def regression() -> Parts:
    """Two numbers from eight."""
    model = layers.Sequential(layers.Dense(16), layers.Tanh(), layers.Dense(2))
    return model, losses.MeanSquaredError(), optim.SGD(0.1, momentum=0.9), _uniform(8, 2)


CASES: dict[str, Callable[[], Parts]] = {"digits": digits, "regularised": regularised, "regression": regression}


def _uniform(features: int, outputs: int) -> list[tuple[Any, ...]]:
    """Inputs in [-1, 1), targets in [0, 1), which depend on them. Uniform numbers are exact on every machine."""
    x = 2 * host().uniform(SEED, f"parity x {features}", (STEPS, SAMPLES, features)) - 1
    weight = 2 * host().uniform(SEED, f"parity weight {features}", (features, outputs)) - 1
    noise = host().uniform(SEED, f"parity noise {features}", (STEPS, SAMPLES, outputs))
    y = sum(x[..., i, None] * weight[i] for i in range(features))  # in this order: a matrix product's may differ
    return list(zip(x, (y > 0) * 0.5 + 0.5 * noise, strict=True))
