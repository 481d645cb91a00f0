"""Learning rates that follow a schedule: on every backend, in captured steps; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from fakegpu import Counts

from gpunet import layers, losses, optim, schedules
from gpunet.errors import ArgumentError, ShapeError
from gpunet.train.step import TrainStep

ALL = {
    "constant": schedules.Constant(0.1),
    "step": schedules.StepDecay(0.1, every=3),
    "multi_step": schedules.MultiStep(0.1, milestones=[2, 5]),
    "exponential": schedules.Exponential(0.1, gamma=0.7),
    "polynomial": schedules.Polynomial(0.1, steps=6, power=2.0, end=0.01),
    "cosine": schedules.Cosine(0.1, steps=6),
    "restarts": schedules.CosineRestarts(0.1, steps=4),
    "growing restarts": schedules.CosineRestarts(0.1, steps=3, factor=2, end=0.01),
    "warmup": schedules.Warmup(0.1, steps=5),
    "inverse": schedules.InverseSquareRoot(0.1, steps=3),
    "one_cycle": schedules.OneCycle(0.1, steps=8),
    "chain": schedules.Chain(schedules.Warmup(0.1, steps=3), schedules.Cosine(0.1, steps=5)),
}
X = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
Y = np.argmax(X[:, :3], axis=-1)


def make(backend, rate, **options):
    model = layers.Sequential(layers.Dense(3)).build((4,), device=backend)
    return TrainStep(model, losses.CrossEntropy(), optim.SGD(rate), **options)


@pytest.mark.parametrize("schedule", ALL.values(), ids=ALL)
def test_a_step_takes_the_rate_of_its_number(schedule, backend):
    """w - lr g, with the gradient that is there after the step."""
    step = make(backend, schedule)
    for i in range(9):
        before = step.model.get_weights()["0.weight"]
        step(X, Y)
        gradient, after = step.model.get_gradients()["0.weight"], step.model.get_weights()["0.weight"]
        np.testing.assert_allclose(before - after, schedule(i) * gradient, rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", [ALL["chain"], lambda step: 0.1 / (1 + step)], ids=["schedule", "function"])
def test_captured_steps_follow(schedule, fakegpu):
    weights = []
    for capture in (True, False):
        gpu = fakegpu()
        step = make(gpu, schedule, capture=capture)
        for _ in range(8):
            gpu.cupy.reset()
            step(X, Y)
        if capture:  # a schedule is part of the graph, a function one fill more
            extra = not isinstance(schedule, schedules.Schedule)
            assert gpu.cupy.counts == Counts(graphs=1, uploads=2, launches=1 + extra)
        weights.append(step.model.get_weights()["0.weight"])
    assert weights[0].tobytes() == weights[1].tobytes()


def test_a_function_of_the_step(backend):
    seen = []
    step = make(backend, lambda i: seen.append(i) or 0.5**i)
    for i in range(4):
        before = step.model.get_weights()["0.weight"]
        step(X, Y)
        gradient, after = step.model.get_gradients()["0.weight"], step.model.get_weights()["0.weight"]
        np.testing.assert_allclose(before - after, 0.5**i * gradient, rtol=0, atol=1e-6)
    assert seen == [0, 1, 2, 3]


def test_a_step_that_fails_does_not_count(cpu):
    seen = []
    step = make(cpu, lambda i: seen.append(i) or 0.1)
    step(X, Y)
    with pytest.raises(ShapeError):
        step(X[:, :2], Y)
    step(X, Y)
    assert seen == [0, 1, 1]


def test_a_schedule_may_take_the_place_of_a_number(cpu, fakegpu):
    for backend in (cpu, fakegpu()):
        step = make(backend, 0.0)
        before = step.model.get_weights()["0.weight"]
        for _ in range(4):
            step(X, Y)
        assert np.array_equal(step.model.get_weights()["0.weight"], before)
        step.optimizer.learning_rate = schedules.Constant(0.1)
        for _ in range(4):
            step(X, Y)
        changed = step.model.get_weights()["0.weight"]
        assert not np.array_equal(changed, before)
        step.optimizer.learning_rate = 0.0
        step(X, Y)
        assert np.array_equal(step.model.get_weights()["0.weight"], changed)


REFUSED = {
    "every": (lambda: schedules.StepDecay(0.1, every=0), "StepDecay needs every > 0, but got 0"),
    "steps": (lambda: schedules.Cosine(0.1, steps=0), "Cosine needs steps > 0, but got 0"),
    "gamma": (lambda: schedules.Exponential(0.1, gamma=-1.0), r"Exponential needs gamma > 0, but got -1\.0"),
    "warmup": (lambda: schedules.OneCycle(0.1, steps=3), r"OneCycle needs 0 < warmup < 1 and steps \* warmup > 1"),
    "one": (lambda: schedules.Chain(schedules.Constant(1.0)), "Chain needs two schedules or more"),
    "ends": (lambda: schedules.Chain(schedules.Constant(1.0), schedules.Constant(2.0)), r"Say ends=\[\.\.\.\]"),
    "text": (lambda: optim.SGD("fast"), "SGD needs learning_rate >= 0, a schedule or a function, but got 'fast'"),
}


@pytest.mark.parametrize(("make_it", "text"), REFUSED.values(), ids=REFUSED)
def test_refusals(make_it, text):
    with pytest.raises(ArgumentError, match=text):
        make_it()


def test_a_function_that_gives_a_negative_rate(cpu):
    step = make(cpu, lambda i: -1.0)
    with pytest.raises(ArgumentError, match=r"SGD needs learning_rate >= 0.* but got -1\.0"):
        step(X, Y)
