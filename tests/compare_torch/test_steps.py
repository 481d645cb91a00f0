"""What a training step offers beyond one batch and all weights: accumulation, freezing, wrong labels."""

import numpy as np
import pytest

from gpunet import TrainStep
from gpunet.layers import Dense, ReLU, Sequential, Tanh
from gpunet.losses import BinaryCrossEntropy, CrossEntropy, MeanSquaredError
from gpunet.optim import SGD, Adam

from .peer import Twin, assert_close, randomize, tensor, torch, torch_loss, torch_optimizer

TOLERANCE = 1e-12


def build(rng):
    model = Sequential(Dense(8), Tanh(), Dense(7), ReLU(), Dense(3)).build((5,), device="cpu", dtype="float64")
    randomize(model, rng)
    return model


def batch(loss, n, rng):
    x = rng.normal(size=(n, 5))
    if isinstance(loss, CrossEntropy):
        return x, rng.integers(0, 3, n)
    return x, rng.random((n, 3))


def train_twin(twin, optimizer, loss, x, y):
    """One step; torch's own gradient accumulation is not used."""
    optimizer.zero_grad()
    value = torch_loss(loss, twin(tensor(x)), tensor(y))
    value.backward()
    optimizer.step()
    return value


@pytest.mark.parametrize(
    "loss", [CrossEntropy(), BinaryCrossEntropy(), MeanSquaredError()], ids=lambda x: type(x).__name__
)
@pytest.mark.parametrize("n", [16, 10, 4], ids=lambda n: f"batch of {n}")
@pytest.mark.parametrize("optimizer", [lambda: SGD(0.1, momentum=0.9), Adam], ids=["SGD", "Adam"])
def test_accumulation_is_the_whole_batch(loss, n, optimizer):
    """accumulate=4 against torch's step on the whole batch, also where 4 does not divide it."""
    rng = np.random.default_rng(n)
    model, optimizer = build(rng), optimizer()
    twin = Twin(model)
    step, theirs = TrainStep(model, loss, optimizer, accumulate=4), torch_optimizer(optimizer, twin.parameters())
    for _ in range(5):
        x, y = batch(loss, n, rng)
        assert_close(step(x, y), train_twin(twin, theirs, loss, x, y), TOLERANCE, "loss")
        assert_close(model.get_gradients(), twin.gradients(), TOLERANCE, "gradient of")
    assert_close(model.get_weights(), twin.weights(), 1e-11, "weights")


@pytest.mark.parametrize("pattern", ["0.*", "2.*", "4.*", "*.bias", "*.weight", "2.weight", "[02].*"])
@pytest.mark.parametrize("optimizer", [lambda: SGD(0.1, momentum=0.9), Adam], ids=["SGD", "Adam"])
def test_freeze_is_requires_grad_false(pattern, optimizer):
    """The others train as if nothing had changed; the clipping norm is that of the others."""
    rng = np.random.default_rng(1)
    model, optimizer = build(rng), optimizer()
    twin, start = Twin(model), model.get_weights()
    model.freeze(pattern)
    frozen = {p.name for p in model.store.parameters if not p.trainable}
    assert frozen
    for name in frozen:
        twin.names[name].requires_grad = False
    step = TrainStep(model, CrossEntropy(), optimizer, clip_norm=0.3)
    theirs = torch_optimizer(optimizer, [p for p in twin.parameters() if p.requires_grad])
    for _ in range(10):
        x, y = batch(CrossEntropy(), 8, rng)
        step(x, y)
        theirs.zero_grad()
        torch_loss(CrossEntropy(), twin(tensor(x)), tensor(y)).backward()
        torch.nn.utils.clip_grad_norm_(twin.parameters(), 0.3)
        theirs.step()
    weights = model.get_weights()
    assert_close(weights, twin.weights(), 1e-11, "weights")
    for name in frozen:
        np.testing.assert_array_equal(weights[name], start[name])
        np.testing.assert_array_equal(model.get_gradients()[name], 0)


def test_frozen_in_the_middle_of_training():
    """SGD without momentum has no state: freezing and thawing between steps is torch's requires_grad."""
    rng = np.random.default_rng(2)
    model, optimizer, loss = build(rng), SGD(0.1), CrossEntropy()
    twin = Twin(model)
    step, theirs = TrainStep(model, loss, optimizer), torch_optimizer(optimizer, twin.parameters())
    for i in range(12):
        if i in (4, 8):
            model.freeze("2.*", frozen=i == 4)
            for name in ("2.weight", "2.bias"):
                twin.names[name].requires_grad = i == 8
        x, y = batch(loss, 8, rng)
        assert_close(step(x, y), train_twin(twin, theirs, loss, x, y), TOLERANCE, "loss")
    assert_close(model.get_weights(), twin.weights(), 1e-11, "weights")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("label", [3, 7, -1, -100], ids=str)
def test_a_label_out_of_range_gives_a_nan_loss(label, dtype):
    """torch raises IndexError on the CPU, and ignores -100; here the step stays free of synchronisation."""
    rng = np.random.default_rng(0)
    model = Sequential(Dense(3)).build((5,), device="cpu", dtype=dtype)
    x, y = batch(CrossEntropy(), 8, rng)
    step = TrainStep(model, CrossEntropy(), SGD(0.1))
    assert np.isfinite(step(x, y))
    y[3] = label
    assert np.isnan(step(x, y))
    assert all(np.isnan(w).all() for w in model.get_weights().values())
