"""Averaged weights."""

from __future__ import annotations

import numpy as np
import pytest
from kit import draw, error

from gpunet import layers, losses, optim
from gpunet.errors import ArgumentError
from gpunet.train.step import TrainStep

X, Y = draw(0, 12, 4), np.arange(12) % 3


def make(backend, dtype="float64", **options):
    model = layers.Sequential(layers.Dense(5), layers.BatchNorm(), layers.Tanh(), layers.Dense(3))
    return TrainStep(model.build((4,), device=backend, dtype=dtype), losses.CrossEntropy(), optim.SGD(0.5), **options)


def trained_names(step):
    return [p.name for p in step.model.store.parameters]


def test_the_average_follows_the_parameters(backend):
    step = make(backend)
    average, expected = optim.AverageWeights(step.model, 0.8), step.model.get_weights()
    for i in range(6):
        if i == 3:
            step.model.freeze("0.*")  # which lays the parameters out anew
        step(X, Y)
        average.update()
        for name, value in step.model.get_weights().items():
            expected[name] = 0.8 * expected[name] + 0.2 * value
    found = average.get_weights()
    for name in trained_names(step):
        assert error(found[name], expected[name]) <= 1e-14, name
    assert np.array_equal(found["1.running_mean"], step.model.get_weights()["1.running_mean"])


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_the_model_has_the_averages_inside_and_its_own_afterwards(dtype, cpu):
    step = make(cpu, dtype)
    average = optim.AverageWeights(step.model, 0.5)
    for _ in range(3):
        step(X, Y)
        average.update()
    own, averages, before = step.model.get_weights(), average.get_weights(), step.model.predict(X)
    with average.applied():
        assert all(np.array_equal(value, averages[name]) for name, value in step.model.get_weights().items())
        inside = step.model.predict(X)
    with pytest.raises(ZeroDivisionError), average.applied():
        raise ZeroDivisionError  # also after an error
    assert all(np.array_equal(value, own[name]) for name, value in step.model.get_weights().items())
    assert np.array_equal(step.model.predict(X), before)
    assert not np.array_equal(inside, before)
    other = make(cpu, dtype)
    other.model.set_weights(averages)
    assert np.array_equal(other.model.predict(X), inside)


def test_parameters_may_be_laid_out_anew_while_the_averages_are_applied(backend):
    step = make(backend)
    average = optim.AverageWeights(step.model, 0.5)
    step(X, Y)
    average.update()
    own = step.model.get_weights()
    with average.applied():
        step.model.freeze("0.*")
    assert all(np.array_equal(value, own[name]) for name, value in step.model.get_weights().items())


def test_a_small_step_of_the_average_is_exact_in_float32(cpu):
    model = layers.Sequential(layers.Dense(1, use_bias=False)).build((1,), device=cpu)
    model.set_weights({"0.weight": [[0.0]]})
    average = optim.AverageWeights(model, 0.99999)
    model.set_weights({"0.weight": [[1.0]]})
    average.update()
    assert average.get_weights()["0.weight"] == pytest.approx(1e-5, rel=1e-6)


def test_on_a_second_gpu(fakegpu):
    step = make(fakegpu(1, gpus=2), "float32")
    average = optim.AverageWeights(step.model, 0.5)
    step(X, Y)
    average.update()
    with average.applied():
        step.model.predict(X)


def test_it_goes_along_with_a_captured_step(fakegpu):
    gpu = fakegpu()
    step = make(gpu, "float32")
    average = optim.AverageWeights(step.model)
    for _ in range(6):
        gpu.cupy.reset()
        step(X, Y)
        average.update()
    assert (gpu.cupy.counts.graphs, gpu.cupy.counts.synchronisations) == (1, 0)
    assert gpu.cupy.counts.kernels == 1


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_bad_decays_are_refused(decay, cpu):
    with pytest.raises(ArgumentError, match=r"AverageWeights needs decay in \[0, 1\), but got .* The default is 0.999"):
        optim.AverageWeights(make(cpu).model, decay)
