"""Every optimizer, and clipping: the same weights from the same gradients."""

import numpy as np
import pytest

from gpunet.layers import Dense, Sequential, Tanh
from gpunet.optim import SGD, Adam, clip

from .peer import DTYPES, TOLERANCE, Twin, assert_close, randomize, tensor, torch, torch_optimizer

OPTIMIZERS = {
    "SGD": lambda: SGD(0.1),
    "SGD with momentum": lambda: SGD(0.05, momentum=0.9),
    "SGD with little momentum": lambda: SGD(0.3, momentum=0.1),
    "SGD of defaults": lambda: SGD(),
    "Adam of defaults": lambda: Adam(),
    "Adam with other betas": lambda: Adam(0.01, beta1=0.8, beta2=0.95),
    "Adam with a large eps": lambda: Adam(0.01, beta1=0.5, beta2=0.9, eps=1e-2),
    "Adam with beta1 = 0": lambda: Adam(0.01, beta1=0.0),
    "Adam with beta2 = 0": lambda: Adam(0.01, beta2=0.0, eps=1e-3),
}


def make_pair(dtype):
    rng = np.random.default_rng(7)
    model = Sequential(Dense(9), Tanh(), Dense(4)).build((6,), device="cpu", dtype=dtype)
    randomize(model, rng)
    return model, Twin(model), rng


def give_gradients(model, twin, gradients):
    """The same gradients to both, as a backward would."""
    model.context(training=True)  # begins a step
    for p in model.store.parameters:
        p.add_grad(gradients[p.name])
        twin.names[p.name].grad = tensor(gradients[p.name].T)


def random_gradients(model, rng, scale=1.0):
    return {n: (scale * rng.normal(size=w.shape)).astype(w.dtype) for n, w in model.get_weights().items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_optimizer(optimizer, dtype):
    """20 steps; the gradients' size goes from 1e-6 to 10, so eps matters."""
    model, twin, rng = make_pair(dtype)
    ours = optimizer()
    theirs = torch_optimizer(ours, twin.parameters())
    for _ in range(20):
        give_gradients(model, twin, random_gradients(model, rng, 10 ** rng.uniform(-6, 1)))
        ours.update(model)
        theirs.step()
        assert_close(model.get_weights(), twin.weights(), TOLERANCE[dtype], "weights")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", [lambda: SGD(0.1, momentum=0.9), Adam], ids=["SGD", "Adam"])
def test_learning_rate_changes_between_steps(optimizer, dtype):
    model, twin, rng = make_pair(dtype)
    ours = optimizer()
    theirs = torch_optimizer(ours, twin.parameters())
    for step in range(20):
        ours.learning_rate = theirs.param_groups[0]["lr"] = 0.1 / (1 + step)
        give_gradients(model, twin, random_gradients(model, rng))
        ours.update(model)
        theirs.step()
    assert_close(model.get_weights(), twin.weights(), TOLERANCE[dtype], "weights")


@pytest.mark.parametrize("dtype", DTYPES)
def test_zero_gradients_leave_adam_in_place(dtype):
    model, twin, rng = make_pair(dtype)
    before = model.get_weights()
    give_gradients(model, twin, random_gradients(model, rng, 0.0))
    Adam(0.1).update(model)
    assert_close(model.get_weights(), before, 0.0, "weights")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 1e3])
@pytest.mark.parametrize("norm", [0.1, 5.0])
def test_clip(norm, scale, dtype):
    model, twin, rng = make_pair(dtype)
    give_gradients(model, twin, random_gradients(model, rng, scale))
    before = clip(model, norm=norm)
    their_norm = torch.nn.utils.clip_grad_norm_(twin.parameters(), norm)
    assert_close(before, their_norm, TOLERANCE[dtype], "norm")
    assert_close(model.get_gradients(), twin.gradients(), TOLERANCE[dtype], "gradient of")


def test_clip_of_a_nan_makes_every_gradient_nan():
    model, twin, rng = make_pair("float64")
    gradients = random_gradients(model, rng)
    gradients["0.bias"][0] = np.nan
    give_gradients(model, twin, gradients)
    clip(model, norm=1.0)
    torch.nn.utils.clip_grad_norm_(twin.parameters(), 1.0)
    for gradients in (model.get_gradients(), twin.gradients()):
        assert all(np.isnan(g).all() for g in gradients.values())
