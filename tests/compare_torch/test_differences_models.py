"""docs/differences.md on building, layers and training: what gpunet does, and what torch does instead."""

import inspect
import re

import numpy as np
import pytest

import gpunet
from gpunet.errors import ArgumentError, ArrayError
from gpunet.layers import Dense, Dropout, Embedding, Flatten, ReLU, Sequential, Sigmoid
from gpunet.losses import CrossEntropy
from gpunet.optim import SGD
from gpunet.train import loss_scale

from .peer import tensor, torch

functional = torch.nn.functional


def build(*layers, shape, **arguments):
    return Sequential(*layers).build(shape, device="cpu", **arguments)


# ---- building


def test_an_index_out_of_range_is_nan():
    model = build(Embedding(4, 2), shape=(3,))
    out, _ = model.forward(np.array([[0, 4, -1]]), model.context(training=False))
    assert np.isnan(out).all(-1).tolist() == [[False, True, True]]
    with pytest.raises(ArgumentError, match=r"takes integers in \[0, 4\)"):
        model.predict(np.array([[0, 4, 1]]))
    with pytest.raises(IndexError):
        torch.nn.Embedding(4, 2)(torch.tensor([4]))


def test_an_embedding_is_the_first_layer():
    with pytest.raises(ArgumentError, match="Make it the first"):
        build(Dense(3), Embedding(4, 2), shape=(3,))
    assert torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Embedding(4, 2))(torch.tensor([[1]])).shape == (1, 1, 2)


def test_a_padding_index_counts_from_the_front():
    with pytest.raises(ArgumentError, match="padding_index"):
        Embedding(4, 2, padding_index=-1)
    assert torch.nn.Embedding(4, 2, padding_idx=-1).padding_idx == 3


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
    (_, _), (held_out, _) = gpunet.data.split(np.arange(100), np.arange(100), fraction=0.2, seed=0)
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
