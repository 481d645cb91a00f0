"""docs/differences.md, statement by statement: what gpunet does, and what torch does instead."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import gpunet
from gpunet.backend import device
from gpunet.errors import ArgumentError, ArrayError, ShapeError
from gpunet.layers import Dense, Dropout, Flatten, ReLU, Sequential, Sigmoid
from gpunet.losses import (
    BinaryCrossEntropy,
    CosineSimilarity,
    CrossEntropy,
    Hinge,
    KLDivergence,
    MeanSquaredError,
    Poisson,
    SmoothL1,
)
from gpunet.optim import SGD, Adadelta, Adagrad, Adam, AdamW, RAdam, RMSprop
from gpunet.train import loss_scale

from .peer import Twin, randomize, tensor, torch

CPU = device("cpu")
PAGE = Path(__file__).parents[2] / "docs" / "differences.md"
functional = torch.nn.functional


def build(*layers, shape, **arguments):
    return Sequential(*layers).build(shape, device="cpu", **arguments)


def test_every_statement_has_a_test_and_every_test_a_statement():
    pinned = set(re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8")))
    here = {name for name in globals() if name.startswith("test_")} - {inspect.currentframe().f_code.co_name}
    assert pinned == here


# ---- building


def test_initial_weights_are_he_normal():
    ours = build(Dense(400), shape=(300,)).get_weights()["0.weight"]
    theirs = torch.nn.Linear(300, 400).weight.detach().numpy()
    assert ours.std() == pytest.approx(np.sqrt(2 / 300), rel=0.02)
    assert np.abs(ours).max() > 3 * ours.std()  # normal: no bound
    assert theirs.std() == pytest.approx(np.sqrt(1 / 3 / 300), rel=0.02)
    assert np.abs(theirs).max() <= 1 / np.sqrt(300)


def test_initial_biases_are_zero():
    assert np.all(build(Dense(50), shape=(300,)).get_weights()["0.bias"] == 0)
    theirs = torch.nn.Linear(300, 50).bias
    assert torch.all(theirs != 0)
    assert theirs.abs().max() <= 1 / np.sqrt(300)


def test_initial_weights_depend_on_seed_and_path_alone():
    shorter, longer = build(Dense(4), shape=(3,)), build(Dense(4), Dense(5), shape=(3,))
    np.testing.assert_array_equal(shorter.get_weights()["0.weight"], longer.get_weights()["0.weight"])
    assert np.any(build(Dense(4), shape=(3,), seed=1).get_weights()["0.weight"] != shorter.get_weights()["0.weight"])
    torch.manual_seed(0)
    first = torch.nn.Linear(3, 4).weight
    assert torch.any(torch.nn.Linear(3, 4).weight != first)  # the next numbers of one global stream


def test_weight_is_in_by_out():
    assert build(Dense(5), shape=(3,)).get_weights()["0.weight"].shape == (3, 5)
    assert torch.nn.Linear(3, 5).weight.shape == (5, 3)


def test_input_shapes_are_inferred():
    assert build(Flatten(), Dense(5), shape=(3, 4)).get_weights()["1.weight"].shape == (12, 5)
    assert list(inspect.signature(torch.nn.Linear).parameters)[:2] == ["in_features", "out_features"]


def test_device_is_chosen():
    for function in (Sequential.build, gpunet.Trainer):
        assert inspect.signature(function).parameters["device"].default == "auto"
    assert torch.get_default_device().type == "cpu"


def test_inputs_are_cast_by_a_step():
    model = build(Dense(2), shape=(3,))
    step = gpunet.TrainStep(model, CrossEntropy(), SGD(0.1))
    assert np.isfinite(step(np.ones((4, 3)), np.array([0, 1, 0, 1])))  # float64 into a float32 model
    with pytest.raises(ArrayError, match="float64"):
        model.forward(np.ones((4, 3)), model.context(training=False))  # the layers themselves never cast
    with pytest.raises(RuntimeError, match="same dtype"):
        torch.nn.Linear(3, 2)(torch.ones((4, 3), dtype=torch.float64))


# ---- layers


def test_training_is_an_argument_not_a_state():
    model = build(Dropout(0.5), shape=(64,))
    x = np.ones((4, 64), np.float32)
    dropped, _ = model.forward(x, model.context(training=True))
    assert np.any(dropped == 0)
    assert np.all(model.predict(x) == 1)
    assert torch.nn.Dropout(0.5).training  # until eval() is called
    assert torch.any(torch.nn.Dropout(0.5)(tensor(x)) == 0)


def test_dropout_is_keyed():
    model = build(Dropout(0.5), shape=(64,))
    x = np.ones((4, 64), np.float32)

    def draw(**key):
        return model.forward(x, model.context(training=True, **key))[0]

    np.testing.assert_array_equal(draw(step=3, seed=1), draw(step=3, seed=1))
    assert np.any(draw(step=3, seed=1) != draw(step=4, seed=1))
    assert np.any(draw(step=3, seed=1) != draw(step=3, seed=2))
    theirs = torch.nn.Dropout(0.5)
    assert torch.any(theirs(tensor(x)) != theirs(tensor(x)))


def test_dropout_rate_is_given_and_below_one():
    assert inspect.signature(Dropout).parameters["rate"].default is inspect.Parameter.empty
    with pytest.raises(ArgumentError, match=re.escape("rate in [0, 1)")):
        Dropout(1.0)
    assert torch.nn.Dropout().p == 0.5
    assert torch.all(torch.nn.Dropout(1.0)(torch.ones(8)) == 0)


def test_a_dropped_infinity_is_zero():
    model = build(Dropout(0.5), shape=(64,))
    x = np.full((4, 64), np.inf, np.float32)
    y, _ = model.forward(x, model.context(training=True))
    assert set(np.unique(y)) == {0, np.inf}
    assert torch.any(torch.isnan(functional.dropout(tensor(x))))  # 0 times inf


def test_relu_slope_at_zero_is_zero():
    model = build(ReLU(), shape=(2,))
    ctx = model.context(training=True, needs_input_grad=True)
    _, saved = model.forward(np.array([[0.0, -0.0]], np.float32), ctx)
    assert np.all(model.backward(np.ones((1, 2), np.float32), saved, ctx) == 0)
    x = torch.zeros(2, requires_grad=True)
    functional.relu(x).sum().backward()
    assert torch.all(x.grad == 0)


# ---- losses


def test_a_loss_returns_value_and_gradient():
    value, gradient = MeanSquaredError().bind(CPU)(np.ones((2, 3)), np.zeros((2, 3)))
    assert (value.shape, gradient.shape) == ((), (2, 3))
    assert functional.mse_loss(torch.ones(2, 3), torch.zeros(2, 3)).shape == ()


def test_losses_take_logits():
    z, t = np.array([[0.3], [-2.0]]), np.array([[1.0], [0.0]])
    ours = BinaryCrossEntropy().bind(CPU)(z, t)[0]
    assert float(ours) == pytest.approx(functional.binary_cross_entropy_with_logits(tensor(z), tensor(t)).item())
    assert float(ours) == pytest.approx(functional.binary_cross_entropy(torch.sigmoid(tensor(z)), tensor(t)).item())


def test_classes_are_on_the_last_axis():
    z, labels = np.random.default_rng(0).normal(size=(2, 5, 3)), np.zeros((2, 5), np.int64)
    assert np.isfinite(CrossEntropy().bind(CPU)(z, labels)[0])
    with pytest.raises(RuntimeError):
        functional.cross_entropy(tensor(z), tensor(labels))  # wants (2, 3, 5)


def test_labels_are_integers_and_all_count():
    z, loss = np.zeros((2, 3)), CrossEntropy().bind(CPU)
    assert float(loss(z, np.eye(3)[:2])[0]) == pytest.approx(np.log(3))
    assert functional.cross_entropy(tensor(z), tensor(np.eye(3)[:2])).item() == pytest.approx(np.log(3))
    assert np.isnan(loss(z, np.array([0, -100]))[0])
    assert functional.cross_entropy(tensor(z), torch.tensor([0, -100])).item() == pytest.approx(np.log(3))
    assert np.isfinite(loss(z, np.array([0, 1], np.int32))[0])
    with pytest.raises(RuntimeError, match="Long"):
        functional.cross_entropy(tensor(z), torch.tensor([0, 1], dtype=torch.int32))


def test_an_impossible_target_counts_zero():
    z, t = np.array([[0.0, -np.inf]]), np.array([[1.0, 0.0]])
    assert CrossEntropy().bind(CPU)(z, t)[0] == 0
    assert torch.isnan(functional.cross_entropy(tensor(z), tensor(t)))


def test_a_label_out_of_range_is_nan():
    assert np.isnan(CrossEntropy().bind(CPU)(np.zeros((2, 3)), np.array([0, 3]))[0])
    with pytest.raises(IndexError):
        functional.cross_entropy(torch.zeros(2, 3), torch.tensor([0, 3]))
    with pytest.raises(ArgumentError, match="labels must be in"):
        gpunet.Trainer(Sequential(Dense(3)), CrossEntropy(), SGD(), device="cpu").fit(
            np.zeros((2, 4)), np.array([0, 3]), verbose=0
        )


def test_losses_do_not_broadcast():
    with pytest.raises(ShapeError, match="one shape"):
        MeanSquaredError().bind(CPU)(np.zeros((4, 1)), np.zeros(4))
    with pytest.warns(UserWarning, match="size"):
        functional.mse_loss(torch.zeros(4, 1), torch.zeros(4))


def test_poisson_takes_logarithms():
    z, t = np.array([0.3, -1.0]), np.array([2.0, 0.0])
    ours = float(Poisson().bind(CPU)(z, t)[0])
    assert ours == pytest.approx(functional.poisson_nll_loss(tensor(z), tensor(t)).item())
    counted = functional.poisson_nll_loss(tensor(np.exp(z)), tensor(t), log_input=False, eps=0.0)
    assert ours == pytest.approx(counted.item())


def test_the_divergence_is_the_mean_over_rows():
    rng = np.random.default_rng(0)
    z, t = rng.normal(size=(2, 3, 4)), rng.random((2, 3, 4))
    ours = float(KLDivergence().bind(CPU)(z, t)[0])
    theirs = functional.kl_div(tensor(z), tensor(t), reduction="sum").item()
    assert ours == pytest.approx(theirs / 6)
    assert functional.kl_div(tensor(z), tensor(t), reduction="batchmean").item() == pytest.approx(theirs / 2)
    assert torch.nn.KLDivLoss().reduction == "mean"


def test_an_impossible_class_counts_zero():
    z, t = np.array([[-np.inf, 0.0]]), np.array([[0.0, 1.0]])
    assert KLDivergence().bind(CPU)(z, t)[0] == 0
    assert torch.isnan(functional.kl_div(tensor(z), tensor(t), reduction="batchmean"))


def test_hinge_is_a_margin_ranking_of_torch():
    p, t = np.array([0.3, -2.0, 3.0, 0.5]), np.array([1.0, 1.0, 1.0, -1.0])
    ours = float(Hinge().bind(CPU)(p, t)[0])
    ranking = functional.margin_ranking_loss(tensor(p), torch.zeros(4), tensor(t), margin=1.0)
    assert ours == pytest.approx(ranking.item())
    at_margin = torch.ones(1, requires_grad=True)
    functional.margin_ranking_loss(at_margin, torch.zeros(1), torch.ones(1), margin=1.0).backward()
    assert at_margin.grad == -1
    assert Hinge().bind(CPU)(np.ones(1), np.ones(1))[1] == 0
    assert functional.hinge_embedding_loss(tensor(p), tensor(t)).item() == pytest.approx(np.mean([0.3, -2, 3, 0.5]))


def test_cosine_loss_is_one_minus_the_similarity():
    p, t = np.array([[3e-9, 0.0]]), np.array([[1.0, 0.0]])
    theirs = tensor(p, grad=True)
    (1 - functional.cosine_similarity(theirs, tensor(t))).backward()
    np.testing.assert_allclose(CosineSimilarity().bind(CPU)(p, t)[1], [[-1e8, 0]])
    np.testing.assert_allclose(theirs.grad, [[-0.7e8, 0]])
    assert float(CosineSimilarity().bind(CPU)(p, t)[0]) == pytest.approx(0.7)
    assert 1 - functional.cosine_similarity(tensor(p), tensor(t)).item() == pytest.approx(0.7)
    embedding = functional.cosine_embedding_loss(tensor(p), tensor(t), torch.ones(1))
    assert embedding.item() == pytest.approx(1 - 3e-9 / np.sqrt(1e-12), rel=1e-5)


def test_smooth_l1_needs_a_beta():
    with pytest.raises(ArgumentError, match="MeanAbsoluteError"):
        SmoothL1(0.0)
    x, y = torch.tensor([0.1, -3.0]), torch.zeros(2)
    assert functional.smooth_l1_loss(x, y, beta=0.0) == functional.l1_loss(x, y)


def test_positive_weight_is_one_number():
    with pytest.raises((TypeError, ValueError)):
        BinaryCrossEntropy(np.ones(3))
    z, t, weights = torch.zeros(2, 3), torch.ones(2, 3), torch.tensor([1.0, 2.0, 3.0])
    value = functional.binary_cross_entropy_with_logits(z, t, pos_weight=weights)
    assert value.item() == pytest.approx(2 * np.log(2))


def test_the_mean_of_nothing_is_zero():
    assert MeanSquaredError().bind(CPU)(np.zeros((0, 3)), np.zeros((0, 3)))[0] == 0
    assert torch.isnan(functional.mse_loss(torch.zeros(0, 3), torch.zeros(0, 3)))
    step = gpunet.TrainStep(build(Dense(3), shape=(2,)), CrossEntropy(), SGD())
    with pytest.raises(ArgumentError, match="at least"):
        step(np.zeros((0, 2)), np.zeros(0, np.int64))


# ---- optimizers


def parameter(*values):
    return torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))


@pytest.mark.parametrize("ours", [SGD(), Adam(), AdamW(), RAdam(), RMSprop(), Adagrad(), Adadelta()])
def test_optimizer_defaults_are_those_of_torch(ours):
    theirs = getattr(torch.optim, type(ours).__name__)([parameter(0.0)]).defaults
    settings = {f.name: getattr(ours, f.name) for f in fields(ours) if f.init}
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


def test_lion_is_here_and_nadam_is_there():
    assert not hasattr(gpunet.optim, "NAdam")
    assert not hasattr(torch.optim, "Lion")
    assert hasattr(gpunet.optim, "Lion")
    assert hasattr(torch.optim, "NAdam")


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


# ---- training


def test_fit_shuffles_and_keeps_the_last_batch():
    assert inspect.signature(gpunet.Trainer.fit).parameters["batch_size"].default == 32
    order = [x for x, _ in gpunet.data.batches(np.arange(10), np.arange(10), 4, seed=0, epoch=0)]
    assert [len(x) for x in order] == [4, 4, 2]
    assert sorted(np.concatenate(order)) == list(range(10))
    assert list(np.concatenate(order)) != list(range(10))
    loader = torch.utils.data.DataLoader(torch.arange(10), batch_size=4)
    assert [x.tolist() for x in loader] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.utils.data.DataLoader(torch.arange(10)).batch_size == 1


def test_validation_split_is_shuffled():
    (_, _), (held_out, _) = gpunet.data.split(np.arange(100), np.arange(100), 0.2, seed=0)
    assert len(held_out) == 20
    assert held_out.min() < 80


def test_mixed_precision_is_a_type_of_the_model():
    model = build(Dense(3), Sigmoid(), shape=(2,), dtype="mixed_bfloat16")
    seen = []
    ctx = model.context(training=False, observe=lambda layer, y: seen.append(y.dtype.name))
    model.forward(model.backend.asarray(np.ones((4, 2)), "bfloat16"), ctx)
    assert seen == ["bfloat16", "bfloat16"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.nn.Linear(2, 3)(torch.ones(4, 2)).dtype == torch.bfloat16
        narrow = torch.ones(4, 2, dtype=torch.bfloat16)
        assert functional.mse_loss(narrow, narrow).dtype == torch.float32


def test_the_loss_scale_is_that_of_torch():
    scaler = torch.amp.GradScaler("cpu")
    step = gpunet.TrainStep(build(Dense(3), shape=(2,), dtype="mixed_float16"), CrossEntropy(), SGD())
    assert step.loss_scale is not None
    assert float(step.loss_scale.factor) == scaler.get_scale()
    ours = (loss_scale.GROWTH, loss_scale.BACKOFF, loss_scale.INTERVAL)
    assert ours == (scaler.get_growth_factor(), scaler.get_backoff_factor(), scaler.get_growth_interval())
