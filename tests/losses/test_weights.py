"""Weights of samples and classes, ignored labels, and what a loss keeps for a backend."""

from __future__ import annotations

import numpy as np
import pytest
from kit import draw, error

import gpunet as gn
from gpunet import losses
from gpunet.errors import ArgumentError, ArrayError, ShapeError


def test_weights_of_more_axes_are_those_of_rows(backend):
    z, y, w = draw(0, 3, 2, 4), np.array([[0, 3], [2, 1], [0, 3]], np.int32), np.arange(6.0).reshape(3, 2)
    loss = losses.CrossEntropy()
    rows = loss(backend.asarray(z.reshape(6, 4)), backend.asarray(y.ravel()), sample_weight=backend.asarray(w.ravel()))
    times = loss(backend.asarray(z), backend.asarray(y), sample_weight=backend.asarray(w))
    assert error(backend.to_numpy(times[0]), backend.to_numpy(rows[0])) <= 1e-14
    assert error(backend.to_numpy(times[1]), backend.to_numpy(rows[1]).reshape(3, 2, 4)) <= 1e-14


def test_weights_that_do_not_fit_are_refused(cpu):
    z, t = np.zeros((3, 2, 4)), np.zeros((3, 2, 4))
    for shape in ((2,), (3, 4), (3, 2, 4), (3, 1), ()):
        with pytest.raises(ShapeError, match=r"one number a sample, but got .* Reshape it to \(3,\) or \(3, 2\)"):
            losses.MeanSquaredError()(z, t, sample_weight=np.ones(shape))
    with pytest.raises(ArrayError, match=r"MeanSquaredError takes sample_weight on \w+, but got a builtins\.list"):
        losses.MeanSquaredError()(z, t, sample_weight=[1.0, 1.0, 1.0])


def test_predictions_of_one_axis(backend):
    p, t, w = draw(0, 5), draw(1, 5), np.arange(5.0)
    value, gradient = losses.MeanSquaredError()(*map(backend.asarray, (p, t)), sample_weight=backend.asarray(w))
    assert error(backend.to_numpy(value), np.mean(w * (p - t) ** 2)) <= 1e-14
    assert error(backend.to_numpy(gradient), 2 * w * (p - t) / 5) <= 1e-14


@pytest.mark.parametrize("weights", [np.arange(6.0), np.arange(6), np.arange(6.0).astype("f4"), np.arange(6) > 2])
def test_weights_of_any_type(weights, backend):
    z, y = draw(0, 6, 4).astype(np.float32), np.array([0, 3, 2, 1, 0, 3], np.int32)
    loss = losses.CrossEntropy()
    value, _ = loss(backend.asarray(z), backend.asarray(y), sample_weight=backend.asarray(weights))
    expected, _ = loss(backend.asarray(z), backend.asarray(y), sample_weight=backend.asarray(weights, "float32"))
    assert value.dtype == expected.dtype
    assert error(backend.to_numpy(value), backend.to_numpy(expected)) == 0


def test_a_loss_that_is_used_elsewhere_keeps_what_it_made(fakegpu):
    """A recorded step reads its constants, wherever the loss is called in between."""
    gpu = fakegpu()
    loss = losses.CrossEntropy(class_weights=[1.0, 2.0, 3.0])
    model = gn.layers.Sequential(gn.layers.Dense(3)).build((4,), device=gpu)
    gn.TrainStep(model, loss, gn.optim.SGD())(np.zeros((2, 4)), np.array([0, 1]))
    made = loss.bound
    loss(np.zeros((2, 3)), np.array([0, 1]))
    assert loss.bound is not made
    loss.bind(gpu)
    assert loss.bound is made


def test_a_copy_has_settings_of_its_own(cpu):
    import copy

    z, y = np.array([[1.0, 0.0]]), np.array([0])
    loss = losses.CrossEntropy()
    before = loss(z, y)[0]
    other = copy.copy(loss)
    other.label_smoothing = 0.5
    assert other(z, y)[0] > before
    assert loss(z, y)[0] == before


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8])
def test_truth_values_become_floats_in_a_step(dtype, backend):
    def loss_of(y):
        model = gn.layers.Sequential(gn.layers.Dense(1)).build((4,), device=backend)
        return backend.to_numpy(gn.TrainStep(model, losses.BinaryCrossEntropy(), gn.optim.SGD())(draw(0, 6, 4), y))

    y = np.array([[0], [1], [1], [0], [1], [0]])
    assert loss_of(y.astype(dtype)) == loss_of(y.astype(np.float32))
    losses.BinaryCrossEntropy().check_targets(y.astype(dtype), (1,))


def test_nothing_of_an_ignored_row_counts(backend):
    z = np.array([[np.nan, 0.0], [1e4, -1e4], [0.0, 0.0]])
    loss = losses.CrossEntropy(ignore_label=-100)
    value, gradient = loss(backend.asarray(z), backend.asarray(np.array([-100, 0, 1])))
    assert error(backend.to_numpy(value), np.log(2) / 2) <= 1e-14
    assert error(backend.to_numpy(gradient), [[0, 0], [0, 0], [0.25, -0.25]]) <= 1e-14
    value, gradient = loss(backend.asarray(z), backend.asarray(np.array([-100] * 3)))
    assert backend.to_numpy(value) == 0
    assert not backend.to_numpy(gradient).any()
    value, gradient = loss(backend.asarray(z), backend.asarray(np.array([-100, 0, -1])))  # no class, not ignored
    assert np.isnan(backend.to_numpy(value))
    assert np.isnan(backend.to_numpy(gradient)[2]).all()


def test_an_ignored_label_passes_the_check_of_targets():
    losses.CrossEntropy(ignore_label=-1).check_targets(np.array([-1, 0, 2]), (3,))
    losses.CrossEntropy(ignore_label=-1).check_targets(np.array([-1, -1]), (3,))
    with pytest.raises(ArgumentError, match=r"labels must be in \[0, 3\).* from -2 to 2"):
        losses.CrossEntropy(ignore_label=-1).check_targets(np.array([-1, -2, 2]), (3,))


def test_as_many_class_weights_as_classes(cpu):
    loss = losses.CrossEntropy(class_weights=[1.0, 2.0])
    with pytest.raises(ShapeError, match=r"has 2 class_weights, but got logits \(5, 3\)\. Give 3 numbers"):
        loss(np.zeros((5, 3)), np.zeros(5, np.int32))
    with pytest.raises(ShapeError, match=r"has 2 class_weights, but got logits \(3,\)"):
        loss.check_targets(np.array([0, 1]), (3,))


def test_labels_without_a_class_do_not_break_the_share():
    assert losses.CrossEntropy(class_weights=[1.0, 2.0]).share(np.array([0, 1, 1, 2, -1])) == 5.0
