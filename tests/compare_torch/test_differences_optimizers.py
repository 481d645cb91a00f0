"""docs/differences.md on optimizers: what gpunet does, and what torch does instead."""

import inspect
import re
from dataclasses import fields

import numpy as np
import pytest

import gpunet
from gpunet.errors import ArgumentError
from gpunet.layers import Dense, Sequential
from gpunet.losses import MeanSquaredError
from gpunet.optim import SGD, Adadelta, Adagrad, Adam, AdamW, AverageWeights, NAdam, RAdam, RMSprop
from gpunet.schedules import Exponential

from .peer import Twin, randomize, tensor, torch

functional = torch.nn.functional


def build(*layers, shape, **arguments):
    return Sequential(*layers).build(shape, device="cpu", **arguments)


def parameter(*values):
    return torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("ours", [SGD(), Adam(), AdamW(), NAdam(), RAdam(), RMSprop(), Adagrad(), Adadelta()])
def test_optimizer_defaults_are_those_of_torch(ours):
    theirs = getattr(torch.optim, type(ours).__name__)([parameter(0.0)]).defaults
    settings = {f.name: getattr(ours, f.name) for f in fields(ours) if f.init and f.name != "groups"}
    assert settings.pop("learning_rate") == theirs["lr"]
    if "betas" in theirs:
        assert (settings.pop("beta1"), settings.pop("beta2")) == theirs["betas"]
    assert settings == {name: theirs[name] for name in settings}
    if isinstance(ours, SGD | Adam):
        assert ours.learning_rate == 1e-3


def test_betas_are_two_settings():
    assert (Adam(beta1=0.8).beta1, torch.optim.Adam([parameter(0.0)], betas=(0.8, 0.9)).defaults["betas"][0]) == (
        0.8,
        0.8,
    )


def test_lion_is_here():
    assert not hasattr(torch.optim, "Lion")
    assert hasattr(gpunet.optim, "Lion")


def test_groups_are_patterns_of_names():
    """The first that matches; a learning rate of a group is its own."""
    ours = AdamW(Exponential(0.1, gamma=0.5), groups={"0.*": {"learning_rate": 0.1}, "*.bias": {"weight_decay": 0.0}})
    model = build(Dense(2), Dense(2), shape=(2,))
    for _ in range(2):
        ours.update(model)
    assert [schedule is None for schedule in ours.schedules] == [False, True]
    theirs = torch.optim.AdamW([{"params": [parameter(0.0)], "lr": 0.1}, {"params": [parameter(0.0)]}], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(theirs, 0.5)
    theirs.step()
    scheduler.step()
    assert [group["lr"] for group in theirs.param_groups] == [0.05, 0.05]


def test_the_product_of_nadam_has_the_parameters_type():
    ours, model = NAdam(0.1), build(Dense(1), shape=(1,), dtype="float64")
    theirs = torch.optim.NAdam([parameter(1.0)], lr=0.1)
    ours.update(model)
    theirs.param_groups[0]["params"][0].grad = torch.ones(1, dtype=torch.float64)
    theirs.step()
    assert set(ours.state) == {"m", "v"}
    assert theirs.state[theirs.param_groups[0]["params"][0]]["mu_product"].dtype == torch.float32


def test_an_average_starts_where_it_is_made():
    model = build(Dense(1, use_bias=False), shape=(1,), dtype="float64")
    model.set_weights({"0.weight": [[1.0]]})
    ours = AverageWeights(model, 0.9)
    linear = torch.nn.Linear(1, 1, bias=False)
    theirs = torch.optim.swa_utils.AveragedModel(linear, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9))
    model.set_weights({"0.weight": [[2.0]]})
    with torch.no_grad():
        linear.weight.fill_(2.0)
    ours.update()
    theirs.update_parameters(linear)
    assert ours.get_weights()["0.weight"] == pytest.approx(1.1)
    assert theirs.module.weight.item() == 2.0


def test_settings_that_are_left_out():
    for optimizer in (SGD, Adam, AdamW, RAdam, RMSprop, Adagrad, Adadelta):
        assert not {"maximize", "decoupled_weight_decay"} & set(inspect.signature(optimizer).parameters)
        assert "maximize" in inspect.signature(getattr(torch.optim, optimizer.__name__)).parameters
    assert "decoupled_weight_decay" in inspect.signature(torch.optim.RAdam).parameters


@pytest.mark.parametrize("optimizer", [Adam, AdamW, RAdam, RMSprop, Adagrad, Adadelta])
def test_eps_is_positive(optimizer):
    with pytest.raises(ArgumentError, match="needs eps > 0, but got 0"):
        optimizer(eps=0)
    p = parameter(1.0)
    theirs = getattr(torch.optim, optimizer.__name__)([p], eps=0)
    for _ in range(10):  # RAdam divides from its sixth step on
        p.grad = torch.zeros_like(p)
        theirs.step()
    assert torch.isnan(p).all()


def test_decay_rates_are_below_one():
    for make in (lambda: SGD(momentum=1.5), lambda: RMSprop(alpha=1.0), lambda: RMSprop(momentum=1.5)):
        with pytest.raises(ArgumentError, match=re.escape("in [0, 1)")):
            make()
    with pytest.raises(ArgumentError, match=re.escape("rho in [0, 1)")):
        Adadelta(rho=1.0)
    torch.optim.SGD([parameter(0.0)], momentum=1.5)
    torch.optim.RMSprop([parameter(0.0)], alpha=1.0, momentum=1.5)
    torch.optim.Adadelta([parameter(0.0)], rho=1.0)


def test_dampening_needs_momentum():
    with pytest.raises(ArgumentError, match="needs momentum for dampening"):
        SGD(dampening=0.5)
    p = parameter(1.0)
    p.grad = torch.ones_like(p)
    torch.optim.SGD([p], lr=0.1, dampening=0.5).step()
    assert p.item() == pytest.approx(0.9)


def test_dampening_spares_the_first_step_of_the_model():
    model, optimizer = build(Dense(1), shape=(1,), dtype="float64"), SGD(0.1, momentum=0.9, dampening=0.5)
    twin = Twin(model)
    theirs = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, dampening=0.5)
    for thawed in (False, True):
        model.freeze("0.bias", frozen=not thawed)
        model.context(training=True)
        for p in model.store.parameters:
            if p.trainable:
                p.add_grad(np.ones(p.shape))
                twin.names[p.name].grad = tensor(np.ones(p.shape[::-1]))
        optimizer.update(model)
        theirs.step()
    assert model.get_weights()["0.weight"] == pytest.approx(twin.weights()["0.weight"])
    assert model.get_weights()["0.bias"] == pytest.approx(-0.05)
    assert twin.weights()["0.bias"] == pytest.approx(-0.1)


def test_a_variance_rounded_below_zero_is_zero():
    model = build(Dense(50, use_bias=False), shape=(20,))
    twin = Twin(model)
    ours = RMSprop(1e-6, alpha=0.5, centered=True)
    theirs = torch.optim.RMSprop(twin.parameters(), lr=1e-6, alpha=0.5, centered=True)
    g = np.random.default_rng(0).normal(size=(20, 50)).astype(np.float32)
    for _ in range(60):
        model.context(training=True)
        model.store.parameters[0].add_grad(g)
        twin.names["0.weight"].grad = tensor(g.T)
        ours.update(model)
        theirs.step()
    assert np.isfinite(model.get_weights()["0.weight"]).all()
    assert np.isnan(twin.weights()["0.weight"]).any()


def test_the_sum_of_adagrad_starts_at_zero():
    model, optimizer = build(Dense(1, use_bias=False), shape=(1,)), Adagrad(initial_accumulator_value=0.5)
    model.context(training=True)
    optimizer.update(model)
    assert not optimizer.state["s"].any()
    p = parameter(0.0)
    assert torch.optim.Adagrad([p], initial_accumulator_value=0.5).state[p]["sum"].item() == 0.5


def test_clip_by_value_is_that_of_torch():
    model = build(Dense(1), shape=(3,))
    model.context(training=True)
    model.store.parameters[0].add_grad(np.array([[-2.0], [0.1], [2.0]], np.float32))
    assert gpunet.optim.clip(model, value=0.5) is None
    p = parameter(0.0, 0.0, 0.0)
    p.grad = torch.tensor([-2.0, 0.1, 2.0], dtype=torch.float64)
    torch.nn.utils.clip_grad_value_([p], 0.5)
    np.testing.assert_allclose(model.get_gradients()["0.weight"][:, 0], p.grad)


def test_there_is_no_zero_grad():
    model = build(Dense(2), shape=(3,))
    randomize(model, np.random.default_rng(0))
    twin, x = Twin(model), np.ones((4, 3), np.float32)
    for _ in range(2):
        ctx = model.context(training=True)  # begins a step: its first gradient overwrites
        y, saved = model.forward(x, ctx)
        model.backward(np.ones_like(y), saved, ctx)
        twin(tensor(x)).sum().backward()
    np.testing.assert_allclose(twin.gradients()["0.bias"], 2 * model.get_gradients()["0.bias"])


def test_a_gradient_that_nobody_wrote_is_zero():
    model, optimizer = build(Dense(1, use_bias=False), shape=(1,), dtype="float64"), SGD(0.1, momentum=0.9)
    twin = Twin(model)
    theirs = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    moved = []
    for gradient in (1.0, None):
        before = model.get_weights()["0.weight"], twin.weights()["0.weight"].copy()
        model.context(training=True)
        theirs.zero_grad()
        if gradient is not None:
            model.store.parameters[0].add_grad(np.ones((1, 1)))
            twin.names["0.weight"].grad = torch.ones((1, 1), dtype=torch.float64)
        optimizer.update(model)
        theirs.step()
        after = model.get_weights()["0.weight"], twin.weights()["0.weight"]
        moved.append([(a - b).item() for a, b in zip(after, before, strict=True)])
    assert moved[0] == pytest.approx([-0.1, -0.1])
    assert moved[1] == pytest.approx([-0.09, 0.0])  # momentum goes on; torch leaves out what has no gradient


def test_the_step_count_of_adam_is_the_models():
    model, optimizer = build(Dense(1), shape=(1,), dtype="float64"), Adam(0.01)
    twin = Twin(model)
    theirs = torch.optim.Adam(twin.parameters(), lr=0.01)
    step = gpunet.TrainStep(model, MeanSquaredError(), optimizer)
    for i in range(4):
        model.freeze("0.bias", frozen=i < 3)
        twin.names["0.bias"].requires_grad = i == 3
        theirs.zero_grad()
        functional.mse_loss(twin(torch.ones(2, 1, dtype=torch.float64)), torch.full((2, 1), 9.0)).backward()
        theirs.step()
        step(np.ones((2, 1)), np.full((2, 1), 9.0))
    first = 0.01 * (1 - 0.9) / (1 - 0.9**4) / np.sqrt((1 - 0.999) / (1 - 0.999**4))  # t = 4
    assert model.get_weights()["0.bias"] == pytest.approx(first, rel=1e-6)
    assert twin.weights()["0.bias"] == pytest.approx(0.01, rel=1e-6)  # t = 1: the step is the learning rate


def test_frozen_gradients_read_as_zero():
    model = build(Dense(2), shape=(3,))
    model.freeze("*")
    assert np.all(model.get_gradients()["0.weight"] == 0)
    frozen = torch.nn.Linear(3, 2).requires_grad_(False)
    assert frozen.weight.grad is None
