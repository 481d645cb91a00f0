"""TrainStep, and the explicit loop it stands for."""

from __future__ import annotations

import numpy as np
import pytest
from kit import draw, error

import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.errors import ArgumentError, ShapeError


def model_on(backend, dtype="float64", dropout=0.3):
    model = layers.Sequential(
        layers.Dense(8), layers.ReLU(), layers.Dropout(dropout), layers.Dense(6), layers.Tanh(), layers.Dense(3)
    )
    return model.build((4,), device=backend, dtype=dtype, seed=5)


X, Y = draw(0, 12, 4), np.random.default_rng(1).integers(0, 3, 12)


def same(a, b, tolerance=0.0):
    return all(error(v, b[n]) <= tolerance for n, v in a.items())


def test_the_explicit_loop_is_the_step(backend):
    stepped, explicit = model_on(backend), model_on(backend)
    step = gn.TrainStep(stepped, losses.CrossEntropy(), optim.Adam(0.01), seed=3)
    values = [float(backend.to_numpy(step(X, Y))) for _ in range(5)]

    loss, optimizer = losses.CrossEntropy().bind(backend), optim.Adam(0.01)
    x, y = backend.asarray(X, "float64"), backend.asarray(Y)
    for i in range(5):
        ctx = explicit.context(training=True, step=i, seed=3)
        out, saved = explicit.forward(x, ctx)
        value, dy = loss(out, y)
        explicit.backward(dy, saved, ctx)
        optimizer.update(explicit)
        assert float(backend.to_numpy(value)) == values[i]
    assert same(stepped.get_weights(), explicit.get_weights())
    assert values[-1] != values[0]


def test_the_loss_is_a_fresh_device_scalar(backend):
    step = gn.TrainStep(model_on(backend, "float32"), losses.CrossEntropy(), optim.SGD(0.1))
    first = step(X, Y)
    kept = float(backend.to_numpy(first))
    second = step(X, Y)
    assert backend.owns(first)
    assert tuple(first.shape) == ()
    assert first is not second
    assert float(backend.to_numpy(first)) == kept


def test_training_lowers_the_loss(backend):
    step = gn.TrainStep(model_on(backend, "float32", dropout=0.0), losses.CrossEntropy(), optim.Adam(0.02))
    values = [float(backend.to_numpy(step(X, Y))) for _ in range(60)]
    assert values[-1] < 0.1 < 0.9 < values[0]


@pytest.mark.parametrize("parts", [2, 5, 12])
def test_accumulation_is_the_whole_batch(parts, backend):
    whole, split = model_on(backend, dropout=0.0), model_on(backend, dropout=0.0)
    one = gn.TrainStep(whole, losses.CrossEntropy(), optim.SGD(0.1, momentum=0.5))
    many = gn.TrainStep(split, losses.CrossEntropy(), optim.SGD(0.1, momentum=0.5), accumulate=parts)
    for _ in range(3):
        assert error(backend.to_numpy(many(X, Y)), backend.to_numpy(one(X, Y))) <= 1e-13
    assert same(split.get_weights(), whole.get_weights(), 1e-13)


@pytest.mark.parametrize("weighted", [False, True])
def test_parts_of_a_batch_count_by_the_labels_of_all(weighted, backend):
    def step(**options):
        loss = losses.CrossEntropy(class_weights=[0.5, 1.0, 3.0], ignore_label=-1)
        return gn.TrainStep(model_on(backend, dropout=0.0), loss, optim.SGD(0.1), **options)

    one, many = step(), step(accumulate=3)
    labels = np.where(np.arange(12) < 4, -1, Y)  # the first part counts nothing
    batch = (X, labels, np.linspace(0, 2, 12)) if weighted else (X, labels)
    for _ in range(3):
        assert error(backend.to_numpy(many(*batch)), backend.to_numpy(one(*batch))) <= 1e-13
    assert same(many.model.get_weights(), one.model.get_weights(), 1e-13)


def test_sample_weights(backend):
    """A sample of weight 2 counts as two, one of weight 0 not at all; n stays."""
    weighted, repeated = model_on(backend, dropout=0.0), model_on(backend, dropout=0.0)
    weights = np.array([2.0] * 4 + [1.0] * 4 + [0.0] * 4)
    order = [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 6, 7]
    one = gn.TrainStep(weighted, losses.CrossEntropy(), optim.SGD(0.1))
    other = gn.TrainStep(repeated, losses.CrossEntropy(), optim.SGD(0.1))
    for given in (weights, backend.asarray(weights), weights.tolist()):
        value = one(X, Y, given)
        assert error(backend.to_numpy(value), backend.to_numpy(other(X[order], Y[order]))) <= 1e-13
    assert same(weighted.get_weights(), repeated.get_weights(), 1e-13)
    with pytest.raises(ArgumentError, match=r"inputs \(12, 4\) and targets \(12,\) and weights \(11,\)"):
        one(X, Y, weights[:-1])


def test_clipping(backend):
    free, clipped = model_on(backend), model_on(backend)
    gn.TrainStep(free, losses.CrossEntropy(), optim.SGD(0.0))(X, Y)
    gn.TrainStep(clipped, losses.CrossEntropy(), optim.SGD(0.0), clip_norm=0.1)(X, Y)
    flat = np.concatenate([g.ravel() for g in clipped.get_gradients().values()])
    assert abs(np.linalg.norm(flat) - 0.1) < 1e-6
    whole = np.concatenate([g.ravel() for g in free.get_gradients().values()])
    assert error(flat / 0.1, whole / np.linalg.norm(whole)) < 1e-5


def test_clipping_by_value(backend):
    free, clipped = model_on(backend), model_on(backend)
    gn.TrainStep(free, losses.CrossEntropy(), optim.SGD(0.0))(X, Y)
    step = gn.TrainStep(clipped, losses.CrossEntropy(), optim.SGD(0.0), clip_value=0.01)
    step(X, Y)
    whole = free.get_gradients()
    assert any(np.abs(g).max() > 0.01 for g in whole.values())
    for name, g in clipped.get_gradients().items():
        assert np.array_equal(g, np.clip(whole[name], -0.01, 0.01)), name
    with pytest.raises(ArgumentError, match=r"clip_norm and clip_value are both set\. Use one of them"):
        step.clip_norm = 1.0
    step.clip_value = None
    step.clip_norm = 1.0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_targets_take_the_models_type(dtype, backend):
    model = layers.Sequential(layers.Dense(1)).build((4,), device=backend, dtype=dtype)
    for targets in (np.ones((12, 1)), np.ones((12, 1), np.float32), [[1.0]] * 12):
        value = gn.TrainStep(model, losses.MeanSquaredError(), optim.SGD(0.0))(X, targets)
        assert value.dtype == model.store.values.dtype


def test_masks_change_from_step_to_step_and_with_the_seed(cpu):
    def masks(seed, step):
        model, seen = model_on(cpu), []
        ctx = model.context(
            training=True, seed=seed, step=step, observe=lambda layer, y: seen.append(np.asarray(y) == 0)
        )
        model.forward(X, ctx)
        return seen[2]

    assert np.array_equal(masks(0, 0), masks(0, 0))
    assert not np.array_equal(masks(0, 0), masks(0, 1))
    assert not np.array_equal(masks(0, 0), masks(1, 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip_norm": 0}, "clip_norm must be positive or None, but got 0"),
        ({"clip_value": -1.0}, "clip_value must be positive or None, but got -1.0"),
        ({"clip_norm": 1.0, "clip_value": 1.0}, "clip_value and clip_norm are both set"),
        ({"accumulate": 0}, "accumulate must be a whole number of parts, at least 1, but got 0"),
        ({"accumulate": 1.5}, "but got 1.5"),
    ],
)
def test_bad_options_are_refused(options, message, cpu):
    with pytest.raises(ArgumentError, match=message):
        gn.TrainStep(model_on(cpu), losses.CrossEntropy(), optim.SGD(), **options)


def test_bad_batches_are_refused_before_anything_changes(cpu):
    model = model_on(cpu)
    step, before = gn.TrainStep(model, losses.CrossEntropy(), optim.Adam(), accumulate=2), model.get_weights()
    for x, y in ((X[:0], Y[:0]), (X, Y[:3]), (X[:1], Y[:1])):
        with pytest.raises(ArgumentError, match="at least accumulate=2 of them, but got inputs"):
            step(x, y)
    with pytest.raises(ShapeError, match=r"but got \(6, 2\)"):
        step(X[:, :2], Y)
    with pytest.raises(ShapeError, match=r"Labels of shape \(6,\) would fit"):
        step(X, Y[:, None])
    assert same(model.get_weights(), before)
    assert step.steps == 0
