"""Every optimizer, and clipping: the same weights from the same gradients."""

import numpy as np
import pytest

from gpunet.layers import Dense, Sequential, Tanh
from gpunet.optim import SGD, Adadelta, Adagrad, Adam, AdamW, AverageWeights, NAdam, RAdam, RMSprop, clip
from gpunet.schedules import Chain, Cosine, Warmup

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
    "SGD with weight decay": lambda: SGD(0.1, weight_decay=0.1),
    "SGD with dampening": lambda: SGD(0.05, momentum=0.9, dampening=0.5, weight_decay=0.01),
    "SGD with nesterov": lambda: SGD(0.05, momentum=0.9, nesterov=True),
    "SGD with nesterov and weight decay": lambda: SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.1),
    "Adam with weight decay": lambda: Adam(0.01, weight_decay=0.1),
    "Adam with amsgrad": lambda: Adam(0.01, beta2=0.9, amsgrad=True),
    "AdamW of defaults": lambda: AdamW(),
    "AdamW with much decay": lambda: AdamW(0.01, beta1=0.8, beta2=0.95, weight_decay=0.5),
    "AdamW with amsgrad": lambda: AdamW(0.01, beta2=0.9, amsgrad=True),
    "RMSprop of defaults": lambda: RMSprop(),
    "RMSprop with momentum": lambda: RMSprop(1e-3, alpha=0.9, momentum=0.9, weight_decay=0.1),
    "RMSprop centered": lambda: RMSprop(1e-3, eps=1e-3, centered=True),
    "RMSprop with all": lambda: RMSprop(1e-3, alpha=0.9, eps=1e-3, centered=True, momentum=0.8, weight_decay=0.1),
    "Adagrad of defaults": lambda: Adagrad(),
    "Adagrad with all": lambda: Adagrad(0.1, lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.3),
    "Adadelta of defaults": lambda: Adadelta(),
    "Adadelta with all": lambda: Adadelta(0.5, rho=0.8, eps=1e-4, weight_decay=0.1),
    "RAdam of defaults": lambda: RAdam(),
    "RAdam with all": lambda: RAdam(0.01, beta1=0.8, beta2=0.95, eps=1e-4, weight_decay=0.1),
    "NAdam of defaults": lambda: NAdam(),
    "NAdam with all": lambda: NAdam(0.01, beta1=0.8, beta2=0.95, eps=1e-4, weight_decay=0.1, momentum_decay=0.3),
    "NAdam decoupled": lambda: NAdam(0.01, weight_decay=0.1, decoupled_weight_decay=True),
    "RAdam that is never rectified": lambda: RAdam(0.01, beta2=0.6),
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


@pytest.fixture
def same_default(dtype):
    """PyTorch keeps NAdam's product of momenta in its default type, whatever the parameters'."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    yield
    torch.set_default_dtype(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_optimizer(optimizer, dtype, same_default):
    """50 steps; the gradients' size goes from 1e-6 to 10, so eps matters."""
    model, twin, rng = make_pair(dtype)
    ours = optimizer()
    theirs = torch_optimizer(ours, twin.parameters())
    for _ in range(50):
        give_gradients(model, twin, random_gradients(model, rng, 10 ** rng.uniform(-6, 1)))
        ours.update(model)
        theirs.step()
        assert_close(model.get_weights(), twin.weights(), TOLERANCE[dtype], "weights")


@pytest.mark.parametrize("dtype", ["float64"])
@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if "all" in n or "decay" in n or "amsgrad" in n])
def test_fifty_steps_with_a_schedule_and_weight_decay(name, dtype, same_default):
    """Warm-up, then a cosine, within 1e-11; the schedule gives PyTorch its learning rates from the host."""
    model, twin, rng = make_pair(dtype)
    peak = OPTIMIZERS[name]().learning_rate
    schedule = Chain(Warmup(peak, steps=10, start=0.1 * peak), Cosine(peak, steps=40, end=0.01 * peak))
    ours = OPTIMIZERS[name]()
    theirs = torch_optimizer(ours, twin.parameters())
    ours.learning_rate = schedule
    assert ours.weight_decay > 0 or "amsgrad" in name
    for step in range(50):
        theirs.param_groups[0]["lr"] = schedule(step)
        give_gradients(model, twin, random_gradients(model, rng, 10 ** rng.uniform(-3, 1)))
        ours.update(model)
        theirs.step()
    assert_close(model.get_weights(), twin.weights(), 1e-11, "weights")


@pytest.mark.parametrize("dtype", DTYPES)
def test_groups(dtype):
    """Biases without decay, the first layer slowly, of the rest the first layer's bias is neither."""
    model, twin, rng = make_pair(dtype)
    ours = AdamW(0.01, weight_decay=0.1, groups={"*.bias": {"weight_decay": 0.0}, "0.*": {"learning_rate": 1e-3}})
    names = twin.names
    theirs = torch.optim.AdamW(
        [
            {"params": [names["2.weight"]]},
            {"params": [names["0.bias"], names["2.bias"]], "weight_decay": 0.0},
            {"params": [names["0.weight"]], "lr": 1e-3},
        ],
        lr=0.01,
        weight_decay=0.1,
    )
    for _ in range(50):
        give_gradients(model, twin, random_gradients(model, rng))
        ours.update(model)
        theirs.step()
    assert_close(model.get_weights(), twin.weights(), TOLERANCE[dtype], "weights")


@pytest.mark.parametrize("dtype", DTYPES)
def test_averaged_weights(dtype):
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model, twin, rng = make_pair(dtype)
    holder = torch.nn.ParameterList(twin.parameters())
    ours, theirs = AverageWeights(model, 0.9), AveragedModel(holder, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    theirs.update_parameters(holder)  # its first update copies the parameters
    optimizer = SGD(0.1)
    peer = torch_optimizer(optimizer, twin.parameters())
    for _ in range(20):
        give_gradients(model, twin, random_gradients(model, rng))
        optimizer.update(model)
        peer.step()
        ours.update()
        theirs.update_parameters(holder)
    averages = dict(zip(twin.names, theirs.module, strict=True))
    found = ours.get_weights()
    for name, value in averages.items():
        assert_close(found[name], value.mT if value.ndim == 2 else value, TOLERANCE[dtype], f"average of {name}")


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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("special", [0.1, np.nan, np.inf, -np.inf])
def test_clip_by_value(special, dtype):
    model, twin, rng = make_pair(dtype)
    gradients = random_gradients(model, rng)
    gradients["0.bias"][0] = special
    give_gradients(model, twin, gradients)
    clip(model, value=0.7)
    torch.nn.utils.clip_grad_value_(twin.parameters(), 0.7)
    theirs = twin.gradients()
    for name, g in model.get_gradients().items():
        np.testing.assert_array_equal(g, theirs[name])
