"""Healthy devices on numbers that are hard: what cancels, underflows, overflows or never settles is no alarm."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet import layers, losses, optim, parity
from gpunet.layer import Layer


def numbers(samples=20, features=6, scale=1.0, target=1.0, count=4):
    rng = np.random.default_rng(0)
    return [
        (scale * rng.standard_normal((samples, features)), target * rng.standard_normal((samples, 2)))
        for _ in range(count)
    ]


def integers(low, high, features=6):
    x = np.random.default_rng(1).integers(low, high, (20, features))
    return [(x, np.zeros((20, 2)))] * 4


class Centred(Layer):
    """A bias, and what takes it away again: its gradient is 0 but for rounding, all in one layer."""

    def setup(self, shape):
        self.bias = self.parameter("bias", shape, lambda seed, path, s: np.full(s, 0.3))
        return shape

    def forward(self, x, ctx):
        y = x + self.bias.value
        return y - ctx.backend.xp.mean(y, axis=0), None

    def backward(self, dy, saved, ctx):
        dx = dy - ctx.backend.xp.mean(dy, axis=0)
        self.bias.add_grad(ctx.backend.xp.sum(dx, axis=0))
        return dx


def after(*parts):
    return [layers.Dense(8), *parts, layers.Dense(2)]


ODD = {
    "a bias before a nested normalisation": (after(layers.Residual(layers.Dense(8), layers.BatchNorm())), numbers()),
    "the same in a sequence": (after(layers.Sequential(layers.Dense(8), layers.BatchNorm())), numbers()),
    "the same within a layer": (after(Centred()), numbers()),
    "a normalisation over two": ([layers.Dense(2), layers.LayerNorm(), layers.Dense(2)], numbers()),
    "a batch of two": (after(layers.BatchNorm()), numbers(samples=2)),
    "saturation": ([layers.Tanh(), layers.Dense(2)], numbers(scale=20)),
    "pixels": (after(layers.Tanh()), integers(0, 256, 64)),
    "times": ([layers.BatchNorm(), layers.Dense(2)], integers(1_700_000_000, 1_701_000_000)),
    "tiny": (after(layers.Tanh()), numbers(scale=1e-10, target=1e-10)),
    "underflow": (after(layers.Tanh()), numbers(scale=1e-20, target=1e-20)),
    "overflow": ([layers.Dense(2)], numbers(target=1e20)),
    "batches of other sizes": (after(layers.ReLU()), [*numbers(samples=1, count=1), *numbers(samples=2000, count=1)]),
}


IN_FLOAT64 = [name for name in ODD if name != "times"]
"""Runs on raw timestamps are further apart than 1e-9 after four steps: a known gap."""


@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float32") for name in ODD), *((name, "float64") for name in IN_FLOAT64)]
)
def test_no_alarm(name, dtype):
    parts, batches = ODD[name]
    described = layers.Sequential(*parts)
    report = parity.compare(
        described if dtype == "float32" else built(described, batches, dtype),
        losses.MeanSquaredError(),
        optim.Adam(),
        batches,
        devices=("cpu", "reference"),
    )
    assert report.ok, report.verdict


def built(model, batches, dtype):
    import copy

    return copy.deepcopy(model).build(batches[0][0].shape[1:], device="cpu", dtype=dtype)


def test_a_model_that_has_converged():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 60)
    x = 3 * np.eye(3)[y] + 0.1 * rng.standard_normal((60, 3))
    model = layers.Sequential(layers.Dense(16), layers.ReLU(), layers.Dense(3))
    report = parity.compare(model, losses.CrossEntropy(), optim.Adam(0.05), [(x, y)] * 60, devices=("cpu", "reference"))
    assert report.ok, report.verdict


def test_a_run_that_diverges_is_told_of():
    model = layers.Sequential(layers.Dense(8), layers.ReLU(), layers.Dense(2))
    report = parity.compare(
        model, losses.MeanSquaredError(), optim.SGD(10.0), numbers(count=30), devices=("cpu", "reference")
    )
    assert report.ok
    assert " of 30 losses of cpu are not finite" in report.verdict
    assert "losses of reference are not finite" in str(report)


def test_float16_says_what_it_cannot_hold(cpu):
    model = layers.Sequential(layers.Dense(2)).build((6,), device="cpu", dtype="mixed_float16")
    report = parity.compare(model, losses.MeanSquaredError(), optim.SGD(), numbers(target=1e20), devices=("cpu", cpu))
    assert not report.ok
    assert "Both are, alike: not a device, but numbers that this precision cannot hold, or the model" in report.verdict
