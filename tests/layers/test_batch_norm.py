"""BatchNorm: running averages, evaluation, weights, capture, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from kit import error

from gpunet import layers, losses, optim
from gpunet.errors import ArgumentError, ShapeError
from gpunet.layers import BatchNorm, Dense, ReLU, Sequential
from gpunet.train.step import TrainStep

RNG = np.random.default_rng(0)
X = (2 * RNG.standard_normal((32, 5)) + 1).astype(np.float32)
Y = np.argmax(X[:, :3], axis=-1)


def model_on(backend, dtype="float32"):
    return Sequential(Dense(6), BatchNorm(), ReLU(), Dense(3)).build((5,), device=backend, dtype=dtype)


def test_running_averages(backend):
    model = Sequential(BatchNorm(momentum=0.25)).build((5,), device=backend, dtype="float64")
    mean, variance = np.zeros(5), np.ones(5)
    for i in range(4):
        x = X.astype(np.float64) * (i + 1)
        model.forward(backend.asarray(x), model.context(training=True))
        mean += 0.25 * (x.mean(0) - mean)
        variance += 0.25 * (x.var(0, ddof=1) - variance)
    weights = model.get_weights()
    assert error(weights["0.running_mean"], mean) < 1e-12
    assert error(weights["0.running_variance"], variance) < 1e-12
    y = model.predict(X)
    assert error(y, (X - mean) / np.sqrt(variance + 1e-5)) < 1e-12
    assert error(model.predict(X[:1]), y[:1]) < 1e-12  # one row is enough outside of training


def test_prediction_changes_nothing(backend):
    model = model_on(backend)
    before = model.get_weights()
    model.predict(X)
    ctx = model.context(training=False, needs_input_grad=True)
    y, saved = model.forward(backend.asarray(X), ctx)
    model.backward(y, saved, ctx)
    assert all(np.array_equal(w, before[n]) for n, w in model.get_weights().items())


def test_backward_outside_of_training_is_that_of_a_fixed_map(backend):
    model = Sequential(BatchNorm()).build((5,), device=backend, dtype="float64")
    model.set_weights({"0.running_variance": np.full(5, 4.0), "0.scale": np.arange(1.0, 6)})
    ctx = model.context(training=False, needs_input_grad=True)
    _, saved = model.forward(backend.asarray(X, "float64"), ctx)
    dx = model.backward(backend.asarray(X, "float64"), saved, ctx)
    assert error(backend.to_numpy(dx), X * np.arange(1.0, 6) / np.sqrt(4 + 1e-5)) < 1e-12


def test_weights_include_the_averages(backend):
    model, other = model_on(backend), model_on(backend)
    names = ["1.scale", "1.shift", "1.running_mean", "1.running_variance"]
    assert set(names) <= set(model.get_weights())
    step = TrainStep(model, losses.CrossEntropy(), optim.SGD(0.1))
    for _ in range(3):
        step(X, Y)
    assert not np.allclose(other.predict(X), model.predict(X))
    other.set_weights(model.get_weights())
    assert np.array_equal(other.predict(X), model.predict(X))
    with pytest.raises(ShapeError, match=r"'1\.running_mean' has shape \(6,\) but got \(5,\)"):
        other.set_weights({"1.running_mean": np.zeros(5)})


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_a_captured_step_keeps_the_averages(fakegpu, dtype):
    weights = []
    for capture in (True, False):
        gpu = fakegpu()
        step = TrainStep(model_on(gpu, dtype), losses.CrossEntropy(), optim.Adam(1e-2), capture=capture)
        for _ in range(10):
            step(X, Y)
        assert gpu.cupy.counts.graphs == 8 * capture
        weights.append(step.model.get_weights())
    assert all(weights[0][n].tobytes() == w.tobytes() for n, w in weights[1].items())
    assert np.any(weights[0]["1.running_mean"] != 0)
    assert weights[0]["1.running_mean"].dtype == np.float32


def test_frozen_scale_and_shift_stay(cpu):
    model = model_on(cpu)
    model.freeze("1.*")
    before = model.get_weights()
    TrainStep(model, losses.CrossEntropy(), optim.SGD(0.5))(X, Y)
    after = model.get_weights()
    assert np.array_equal(before["1.scale"], after["1.scale"])
    assert not np.array_equal(before["0.weight"], after["0.weight"])


def test_a_large_mean_does_not_cancel(backend):
    """E[x²] - E[x]² would."""
    model = Sequential(BatchNorm()).build((5,), device=backend)
    x = (X + 1000).astype(np.float32)
    y, _ = model.forward(backend.asarray(x), model.context(training=True))
    x = x.astype(np.float64)
    assert error(backend.to_numpy(y), (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)) < 1e-3


def test_refusals(cpu):
    with pytest.raises(ArgumentError, match=r"BatchNorm needs momentum in \[0, 1\], but got 1\.5"):
        BatchNorm(momentum=1.5)
    with pytest.raises(ArgumentError, match="BatchNorm needs eps > 0, but got 0"):
        BatchNorm(eps=0)
    with pytest.raises(ShapeError, match=r"needs inputs \(…, features\) but got \(…,\)"):
        Sequential(BatchNorm()).build((), device=cpu)
    model = model_on(cpu)
    with pytest.raises(ArgumentError, match=r"needs two rows or more in training, but got \(1, 6\)"):
        TrainStep(model, losses.CrossEntropy(), optim.SGD(0.1))(X[:1], Y[:1])


def test_layers_are_named_once_when_shared(cpu):
    shared = BatchNorm(name="norm")
    model = Sequential(Dense(4), shared, layers.Tanh(), shared).build((5,), device=cpu)
    assert sorted(n for n in model.get_weights() if "running" in n) == ["norm.running_mean", "norm.running_variance"]
