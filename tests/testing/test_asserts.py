"""assert_gradients, assert_parity, assert_replay."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet import layers, losses, optim, parity, testing
from gpunet.errors import GradientError
from gpunet_backends.numpy_ import NumpyBackend

RNG = np.random.default_rng(0)
BATCHES = [(RNG.standard_normal((8, 4)).astype(np.float32), RNG.integers(0, 3, 8)) for _ in range(3)]


def run():
    model = layers.Sequential(layers.Dense(5), layers.Tanh(), layers.Dense(3))
    return model, losses.CrossEntropy(), optim.Adam(0.01), BATCHES


class Coarse(NumpyBackend):
    """Products that are off by a thousandth."""

    def __init__(self):
        super().__init__()
        self.name = "coarse"

    def gemm(self, a, b, **options):
        return super().gemm(a * a.dtype.type(1.001), b, **options)


class Wrong(layers.Tanh):
    def derivative(self, xp, dy, x, y, *operands):
        return dy * y


def test_gradients():
    testing.assert_gradients(layers.Dense(3), (5, 4))
    testing.assert_gradients(losses.Huber(), (5, 4), device="reference", seed=3)
    with pytest.raises(GradientError, match="Wrong: the gradient of 'x' is off"):
        testing.assert_gradients(Wrong(), (5, 4))


def test_parity():
    report = testing.assert_parity(*run(), devices=("reference", "cpu"))
    assert report.ok
    with pytest.raises(AssertionError, match=r"Dense '0' +output .* OFF: coarse"):
        testing.assert_parity(*run(), devices=("reference", Coarse()))


def test_replay(tmp_path):
    parity.record(*run(), tmp_path / "run", device="reference")
    assert testing.assert_replay(tmp_path / "run", device="cpu").ok
    with pytest.raises(AssertionError, match="Dense '0'"):
        testing.assert_replay(tmp_path / "run", device=Coarse())
