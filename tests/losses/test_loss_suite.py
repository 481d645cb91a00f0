"""From one spec per loss: every backend against the float64 reference and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from kit import LOSSES, TOLERANCE, draw, error
from loss_specs import binary_cross_entropy

import gpunet as gn
from gpunet import losses
from gpunet.errors import ArgumentError, ArrayError, ShapeError

specs = pytest.mark.parametrize("spec", LOSSES, ids=lambda s: s.name)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def evaluated(spec, backend, dtype, prediction, target, **options):
    value, gradient = spec.make()(backend.asarray(prediction, dtype), given(backend, target, dtype), **options)
    return np.array(backend.to_numpy(value)), np.array(backend.to_numpy(gradient))


def given(backend, target, dtype):
    return backend.asarray(target, dtype if target.dtype.kind == "f" else None)


@specs
@dtypes
def test_value_and_gradient_are_the_reference(spec, dtype, backend):
    z, t = draw(0, *spec.shape).astype(dtype), spec.target(spec.shape)
    t = t.astype(dtype) if t.dtype.kind == "f" else t
    value, gradient = evaluated(spec, backend, dtype, z, t)
    expected = spec.reference(z.astype(np.float64), t.astype(np.float64) if t.dtype.kind == "f" else t)
    assert value.shape == ()
    assert value.dtype == gradient.dtype == dtype
    assert error(value, expected[0]) <= TOLERANCE[dtype]
    assert error(gradient, expected[1]) <= TOLERANCE[dtype]


@specs
def test_gradient_is_the_derivative(spec, backend):
    errors = gn.gradcheck(spec.make(), spec.shape, target=spec.target(spec.shape), device=backend)
    assert errors.keys() == {"prediction"}
    assert errors["prediction"] < 1e-6
    assert gn.gradcheck(spec.make(), spec.shape, device=backend)["prediction"] < 1e-6


@specs
def test_an_empty_batch_costs_nothing(spec, backend):
    shape = (0, *spec.shape[1:])
    value, gradient = evaluated(spec, backend, "float32", np.zeros(shape), spec.target(shape))
    assert value == 0
    assert gradient.shape == shape


@specs
def test_terms_override_the_mean(spec, backend):
    z, t = draw(0, *spec.shape), spec.target(spec.shape)
    value, gradient = evaluated(spec, backend, "float64", z, t)
    n = spec.make().terms(spec.shape)
    halved = evaluated(spec, backend, "float64", z, t, terms=2 * n)
    assert error(halved[0], value / 2) <= 1e-14
    assert error(halved[1], gradient / 2) <= 1e-14


@specs
def test_targets_that_do_not_fit_are_refused(spec, backend):
    z, t = draw(0, *spec.shape), spec.target(spec.shape)
    wrong = t.astype(np.float64) if t.dtype.kind == "i" else t.astype(np.int32)
    with pytest.raises(ShapeError, match=r"needs .* but got"):
        evaluated(spec, backend, "float64", z, t[:-1])
    with pytest.raises(ArrayError, match=r"needs (integer labels|float targets) but got"):
        evaluated(spec, backend, "float64", z, wrong)


def test_a_target_of_another_backend_is_refused(cpu):
    from conftest import require

    strict = require("strict")
    z = strict.asarray(np.zeros((2, 3)))
    with pytest.raises(ArrayError, match=r"CrossEntropy takes targets on array_api_strict, but got a numpy\.ndarray"):
        losses.CrossEntropy()(z, np.zeros(2, np.int32))
    with pytest.raises(ArrayError, match="no backend in use owns this list"):
        losses.CrossEntropy()([[1.0]], np.zeros(2, np.int32))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_logits_of_ten_thousand_stay_finite(dtype, backend):
    z = np.array([[1e4, -1e4], [-1e4, 1e4], [0.0, 0.0]])
    value, gradient = losses.CrossEntropy()(backend.asarray(z, dtype), backend.asarray(np.array([0, 0, 1])))
    assert error(backend.to_numpy(value), (0 + 2e4 + np.log(2)) / 3) < 1e-6
    assert error(backend.to_numpy(gradient), np.array([[0, 0], [-1, 1], [0.5, -0.5]]) / 3) < 1e-6
    t = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5]])
    value, gradient = losses.BinaryCrossEntropy()(backend.asarray(z, dtype), backend.asarray(t, dtype))
    assert error(backend.to_numpy(value), (2e4 + 2 * np.log(2)) / 6) < 1e-6
    assert error(backend.to_numpy(gradient), np.array([[0, 0], [-1, 1], [0, 0]]) / 6) < 1e-6


def test_special_values(backend):
    z = np.array([[0.0, -np.inf, 1.0], [np.nan, 0.0, 0.0], [0.0, 0.0, 0.0]], np.float32)
    _, gradient = losses.CrossEntropy()(backend.asarray(z), backend.asarray(np.array([2, 0, 3], np.int32)))
    gradient = backend.to_numpy(gradient)
    p = 1 / (1 + np.exp(1.0))
    assert error(gradient[0], np.array([p, 0, -p]) / 3) < 1e-6  # a class of probability 0
    assert np.isnan(gradient[1]).all()
    assert np.isnan(gradient[2]).all()  # a label out of range
    value, _ = losses.CrossEntropy()(backend.asarray(z[:1]), backend.asarray(np.array([-1])))
    assert np.isnan(backend.to_numpy(value))


def test_labels_past_int32_do_not_wrap_into_range(backend):
    z, y = backend.asarray(np.zeros((2, 3), np.float32)), backend.asarray(np.array([0, 2**32 + 1]))
    assert np.isnan(backend.to_numpy(losses.CrossEntropy()(z, y)[0]))


def test_binary_cross_entropy_keeps_its_digits_on_both_sides(backend):
    for z, t in ((30.7, 0.999), (-30.7, 0.001)):
        z, t = np.float32(z), np.float32(t)
        value, _ = losses.BinaryCrossEntropy()(backend.asarray(z.reshape(1, 1)), backend.asarray(t.reshape(1, 1)))
        assert error(backend.to_numpy(value), binary_cross_entropy(float(z), float(t))[0]) < 1e-6


def test_check_targets_names_rule_value_and_remedy():
    ce, bce, mse = losses.CrossEntropy(), losses.BinaryCrossEntropy(), losses.MeanSquaredError()
    with pytest.raises(ArgumentError, match=r"labels must be in \[0, 3\).* from 1 to 3\. Count classes from 0"):
        ce.check_targets(np.array([1, 3]), (3,))
    with pytest.raises(ArrayError, match="integer labels but got float64"):
        ce.check_targets(np.array([1.0]), (3,))
    with pytest.raises(ShapeError, match=r"labels \(…\), but got \(2, 3\) and \(2, 1\)"):
        ce.check_targets(np.zeros((2, 1), int), (3,))
    with pytest.raises(ArgumentError, match=r"targets in \[0, 1\], but they go from 0.0 to 2.0"):
        bce.check_targets(np.array([[0.0], [2.0]]), (1,))
    with pytest.raises(ShapeError, match=r"one shape, but got \(2, 1\) and \(2,\)\. Reshape the target to \(2, 1\)"):
        mse.check_targets(np.zeros(2), (1,))
    with pytest.raises(ArrayError, match="float targets but got int64"):
        mse.check_targets(np.zeros((2, 1), int), (1,))


def test_labels_decide():
    xp = np
    assert losses.CrossEntropy().labels(np.array([[1.0, 3.0, 2.0]]), xp).tolist() == [1]
    assert losses.BinaryCrossEntropy().labels(np.array([-1.0, 0.5]), xp).tolist() == [False, True]
    assert losses.MeanSquaredError().labels(np.zeros(2), xp) is None


def test_a_loss_without_a_formula_says_so(cpu):
    with pytest.raises(NotImplementedError, match="Loss does not define formula"):
        losses.Loss()(np.zeros((2, 1)), np.zeros((2, 1)))
