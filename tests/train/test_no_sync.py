"""A training step, kernel by kernel, never waits for the GPU: counted on the fake one, which runs the real backend."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from fakegpu import Counts, open_fakegpu

from gpunet import layers, losses, optim
from gpunet.train.step import TrainStep

SEED, CLIP = 9, 0.5

OPERANDS = ["step"]
"""What a step makes of host numbers: its own number, for dropout. The seed, the numbers of the draws, the limit of the
norm, the learning rate, t and the loss's 1/n are made in the first step."""


def classifier(backend, dtype="float32"):
    model = layers.Sequential(
        layers.Dense(16),
        layers.ReLU(),
        layers.Dropout(0.2),
        layers.Dense(8),
        layers.Tanh(),
        layers.Dropout(0.1),
        layers.Dense(3),
    )
    model.build((5,), device=backend, dtype=dtype)
    return model


def batch(n=6):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 5)).astype(np.float32), rng.integers(0, 3, n).astype(np.int32)


class Case:
    """A step on a fake GPU that has run twice, and a batch that is there already."""

    def __init__(self, **options):
        self.backend = open_fakegpu()
        self.cupy = self.backend.cupy
        self.step = TrainStep(
            classifier(self.backend),
            options.pop("loss", losses.CrossEntropy()),
            options.pop("optimizer", optim.Adam(1e-3)),
            clip_norm=CLIP,
            seed=SEED,
            capture=False,
            **options,
        )
        self.x, self.y = (self.backend.asarray(a) for a in batch())
        for _ in range(2):
            self.step(self.x, self.y)
        self.cupy.reset()

    def run(self, x=None, y=None):
        """One step from zero; -> its counts."""
        self.cupy.reset()
        self.step(self.x if x is None else x, self.y if y is None else y)
        return self.cupy.counts


@pytest.fixture
def case():
    return Case()


OPTIONS = {
    "adam": dict,
    "sgd": lambda: {"optimizer": optim.SGD(0.1)},
    "momentum": lambda: {"optimizer": optim.SGD(0.1, momentum=0.9)},
    "parts": lambda: {"accumulate": 3},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_step_on_device_arrays_neither_copies_nor_waits(options):
    case = Case(**options())
    for _ in range(3):
        counts = case.run()
        assert (counts.uploads, counts.downloads, counts.synchronisations) == (0, 0, 0)
        assert counts.launches > 0


def test_from_the_second_step_on(case):
    """The first step makes the learning rate, t and 1/n, and compiles; it does not wait either."""
    step = TrainStep(classifier(case.backend), losses.CrossEntropy(), optim.Adam(1e-3), clip_norm=CLIP, capture=False)
    case.cupy.reset()
    step(case.x, case.y)
    assert (case.cupy.counts.uploads, case.cupy.counts.synchronisations) == (0, 0)


def test_numbers_from_the_host_are_few_and_known(case, monkeypatch):
    made = []
    scalar = type(case.backend).scalar
    monkeypatch.setattr(
        type(case.backend), "scalar", lambda self, value, dtype: made.append(value) or scalar(self, value, dtype)
    )
    step = case.step.steps = 1000
    counts = case.run()
    expected = {step if v == "step" else v for v in OPERANDS}
    assert set(made) <= expected
    assert len(made) <= len(OPERANDS)
    assert counts.scalars <= len(OPERANDS)


def test_only_the_number_of_the_step_changes(case):
    """All a captured step would have to be told."""
    values = []
    for case.step.steps in (1000, 2000):
        case.run()
        values.append(list(case.cupy.values))
    assert len(values[0]) == len(values[1])
    assert {(a, b) for a, b in zip(*values, strict=True) if a != b} <= {(1000, 2000)}


def test_a_new_learning_rate_is_one_launch_more(case):
    before = case.run().launches
    case.step.optimizer.learning_rate = 0.25
    assert case.run().launches == before + 1
    assert case.run().launches == before
    assert float(case.step.optimizer._groups[0].lr) == 0.25


def test_host_inputs_are_copied_once_each(case):
    on_device = case.run()
    on_host = case.run(*batch())
    assert on_host == replace(on_device, uploads=2)


def test_host_inputs_are_converted_on_the_host(case):
    x, y = batch()
    assert case.run(x.astype(np.float64), y).uploads == 2


def test_a_step_can_be_captured(case):
    """Nothing in it is forbidden while a CUDA graph is captured."""
    with case.cupy.capturing():
        case.step(case.x, case.y)


def test_a_step_on_host_arrays_cannot_be_captured(case):
    with case.cupy.capturing(), pytest.raises(RuntimeError, match="an array is copied from the host"):
        case.step(*batch())


def test_the_loss_is_a_device_array_and_reading_it_waits(case):
    loss = case.step(case.x, case.y)
    assert case.backend.owns(loss)
    assert loss.shape == ()
    case.cupy.reset()
    float(loss)
    assert case.cupy.counts == Counts(downloads=1, synchronisations=1)


@dataclass(eq=False, kw_only=True)
class Reading(losses.CrossEntropy):
    """Reads its value on the host: what the counters are there to find."""

    def __call__(self, prediction, target, **options):
        value, gradient = super().__call__(prediction, target, **options)
        self.last = float(value)
        return value, gradient


def test_a_planted_synchronisation_is_seen():
    case = Case(loss=Reading())
    counts = case.run()
    assert (counts.downloads, counts.synchronisations) == (1, 1)
    with case.cupy.capturing(), pytest.raises(RuntimeError, match="D2H transfers are disallowed"):
        case.step(case.x, case.y)


def test_the_numbers_are_those_of_the_cpu(cpu):
    """The same formulas in another order of operations: five float64 steps agree."""
    weights = []
    for backend in (cpu, open_fakegpu()):
        model = classifier(backend, "float64")
        step = TrainStep(model, losses.CrossEntropy(), optim.Adam(1e-2), clip_norm=CLIP, seed=SEED)
        for _ in range(5):
            step(*batch())
        weights.append(model.get_weights())
    for name, w in weights[0].items():
        np.testing.assert_allclose(weights[1][name], w, rtol=0, atol=1e-12, err_msg=name)


def test_a_step_on_the_second_gpu():
    backend = open_fakegpu(1, gpus=2)
    step = TrainStep(classifier(backend), losses.CrossEntropy(), optim.Adam(1e-3), clip_norm=CLIP)
    step(*batch())
    model = step.model
    model.freeze("0.*")
    step(*batch())
    model.set_weights(model.get_weights())
    assert np.isfinite(model.predict(batch()[0])).all()
    assert all(np.isfinite(g).all() for g in model.get_gradients().values())
