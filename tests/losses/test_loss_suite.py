"""From one spec per loss: every backend against the float64 reference and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from kit import LOSSES, draw, error
from loss_specs import binary_cross_entropy

import gpunet as gn
from gpunet import losses
from gpunet.errors import ArgumentError, ArrayError, ShapeError
from gpunet.testing import losses as checks
from gpunet.testing.suites import suite

TestLosses = suite(checks.CHECKS, LOSSES)


@pytest.mark.parametrize("case", LOSSES, ids=lambda case: case.name)
def test_targets_of_a_wrong_type_are_refused(case, cpu):
    given = checks.inputs(case, "float64", 0)
    kind = "float64" if given["target"].dtype.kind == "i" else "int32"
    with pytest.raises(ArrayError, match=r"needs (integer labels|float targets) but got"):
        checks.evaluated(case.make().bind(cpu), cpu, "float64", given | {"target": given["target"].astype(kind)})


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
    with pytest.raises(
        ArrayError, match=r"float targets but got int64 of the logits' shape\. One-hot rows become labels"
    ):
        ce.check_targets(np.zeros((2, 3), int), (3,))
    with pytest.raises(ArrayError, match="integer labels but got bool"):
        ce.prepare(np.zeros(2, bool), gn.device("cpu"))
    ce.check_targets(np.array([[0.5, 0.25, 0.25]]), (3,))
    with pytest.raises(ShapeError, match=r"labels \(…\), but got \(2, 3\) and \(2, 1\)"):
        ce.check_targets(np.zeros((2, 1), int), (3,))
    with pytest.raises(ArgumentError, match=r"targets in \[0, 1\], but they go from 0.0 to 2.0"):
        bce.check_targets(np.array([[0.0], [2.0]]), (1,))
    with pytest.raises(ShapeError, match=r"one shape, but got \(2, 1\) and \(2,\)\. Reshape the target to \(2, 1\)"):
        mse.check_targets(np.zeros(2), (1,))
    with pytest.raises(ArrayError, match="float targets but got int64"):
        mse.check_targets(np.zeros((2, 1), int), (1,))


def test_one_cross_entropy_takes_labels_and_probabilities(backend):
    z, y = draw(0, 6, 4), np.array([0, 3, 2, 1, 0, 3], np.int32)
    loss = losses.CrossEntropy()
    for _ in range(2):
        value, gradient = loss(backend.asarray(z), backend.asarray(y))
        soft_value, soft_gradient = loss(backend.asarray(z), backend.asarray(np.eye(4)[y]))
        assert error(backend.to_numpy(value), backend.to_numpy(soft_value)) < 1e-14
        assert error(backend.to_numpy(gradient), backend.to_numpy(soft_gradient)) < 1e-14


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_probabilities_of_special_values(smoothing, backend):
    loss = losses.CrossEntropy(label_smoothing=smoothing)
    z = np.array([[0.0, -np.inf, 1.0]])
    value, gradient = loss(backend.asarray(z), backend.asarray(np.array([[0.0, 0.0, 1.0]])))
    expected = np.inf if smoothing else np.log1p(np.exp(-1))  # smoothed, no class is impossible
    np.testing.assert_allclose(backend.to_numpy(value), expected, rtol=1e-12)
    assert np.isfinite(backend.to_numpy(gradient)).all()
    value, gradient = loss(backend.asarray(np.zeros((1, 3))), backend.asarray(np.array([3])))
    assert np.isnan(backend.to_numpy(value))
    assert np.isnan(backend.to_numpy(gradient)).all()


def test_training_on_probabilities(cpu):
    x, y = draw(0, 64, 8), np.arange(64) % 4
    x[:, :4] += 4 * np.eye(4)[y]
    model, optimizer = gn.layers.Sequential(gn.layers.Dense(4)), gn.optim.Adam(0.05)
    trainer = gn.Trainer(model, losses.CrossEntropy(), optimizer, metrics=["accuracy"], device="cpu")
    history = trainer.fit(x, np.eye(4)[y], epochs=20, verbose=0)
    assert history["loss"][-1] < history["loss"][0] / 2
    assert trainer.evaluate(x, np.eye(4)[y])["accuracy"] > 0.9
    with pytest.raises(ArgumentError, match="CrossEntropy needs rows of probabilities that add up to 1"):
        trainer.fit(x, 0.5 * np.eye(4)[y], verbose=0)


def test_bad_arguments_are_refused():
    for weights in ([], [0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [float("inf")], "12", 2.0, {1: 1.0}, {"a": 1.0}):
        with pytest.raises(ArgumentError, match=r"needs finite class_weights >= 0, not all 0, one for each class, but"):
            losses.CrossEntropy(class_weights=weights)
    assert losses.CrossEntropy(class_weights={1: 2.0, 0: 0.5}).class_weights == (0.5, 2.0)
    for label in (2**31, 2**31 - 1, 1.5, "a"):
        with pytest.raises(ArgumentError, match="needs an ignore_label in int32, but got"):
            losses.CrossEntropy(ignore_label=label)
    with pytest.raises(ArgumentError, match=r"needs an ignore_label in int32, but got 2147483648\. Use -1"):
        losses.CrossEntropy(ignore_label=2**31)
    with pytest.raises(ArgumentError, match=r"label_smoothing in \[0, 1\], but got 1\.5\. 0\.1 is usual"):
        losses.CrossEntropy(label_smoothing=1.5)
    with pytest.raises(ArgumentError, match=r"Huber needs a finite delta > 0, but got 0\. MeanAbsoluteError\(\) and"):
        losses.Huber(0)
    with pytest.raises(ArgumentError, match=r"SmoothL1 needs a finite beta > 0, but got nan\. For 0 use MeanAbs"):
        losses.SmoothL1(float("nan"))
    with pytest.raises(ArgumentError, match=r"a finite positive_weight > 0, but got -1\.0\. 1\.0 counts both classes"):
        losses.BinaryCrossEntropy(-1.0)
    with pytest.raises(ArgumentError, match=r"CosineSimilarity needs a finite eps > 0, but got 0\. The default is"):
        losses.CosineSimilarity(eps=0)


def test_the_slope_of_an_absolute_value_at_0_is_0(backend):
    x = backend.asarray(np.zeros((2, 3), np.float32))
    assert np.all(backend.to_numpy(losses.MeanAbsoluteError()(x, x)[1]) == 0)


def test_check_targets_of_the_other_families():
    losses.Hinge().check_targets(np.array([[1.0], [-1.0]]), (1,))
    with pytest.raises(ArgumentError, match=r"targets of -1 and 1, but they go from 0.0 to 1.0, .* by 2 \* y - 1"):
        losses.Hinge().check_targets(np.array([[0.0], [1.0]]), (1,))
    with pytest.raises(ArgumentError, match=r"counts >= 0, but they go from -1.0 to 2.0\. .* use MeanSquaredError"):
        losses.Poisson().check_targets(np.array([[-1.0], [2.0]]), (1,))
    losses.KLDivergence().check_targets(np.array([[0.25, 0.75]]), (2,))
    with pytest.raises(ArgumentError, match=r"probabilities in \[0, 1\], but they go from -1.0 to 2.0\. Turn logits"):
        losses.KLDivergence().check_targets(np.array([[-1.0, 2.0]]), (2,))
    with pytest.raises(ArgumentError, match=r"add up to 1, but the sums go from 0.5 to 1.0\. Divide each row"):
        losses.KLDivergence().check_targets(np.array([[0.25, 0.25], [1.0, 0.0]]), (2,))
    for loss in (losses.Hinge(), losses.Poisson(), losses.KLDivergence()):
        loss.check_targets(np.zeros((0, 2)), (2,))


def test_a_class_of_probability_0_costs_nothing_however_unlikely_it_was(backend):
    z, t = backend.asarray(np.array([[-np.inf, 0.0]])), backend.asarray(np.array([[0.0, 1.0]]))
    value, gradient = losses.KLDivergence()(z, t)
    assert backend.to_numpy(value) == 0
    assert backend.to_numpy(gradient).tolist() == [[0, -1]]


def test_a_vector_shorter_than_eps_is_measured_against_it(backend):
    p = np.array([[3e-9, 4e-9], [0.0, 0.0]])
    value, gradient = losses.CosineSimilarity()(backend.asarray(p), backend.asarray(np.array([[1.0, 0.0]] * 2)))
    assert error(backend.to_numpy(value), (0.7 + 1) / 2) < 1e-12
    assert error(backend.to_numpy(gradient), np.array([[-1e8, 0], [-1e8, 0]]) / 2) < 1e-12


def test_labels_decide():
    xp = np
    assert losses.Hinge().labels(np.array([-0.3, 2.0]), xp).tolist() == [-1, 1]
    assert losses.CrossEntropy().labels(np.array([[1.0, 3.0, 2.0]]), xp).tolist() == [1]
    assert losses.BinaryCrossEntropy().labels(np.array([-1.0, 0.5]), xp).tolist() == [False, True]
    assert losses.MeanSquaredError().labels(np.zeros(2), xp) is None


def test_a_loss_without_a_formula_says_so(cpu):
    with pytest.raises(NotImplementedError, match="Loss does not define formula"):
        losses.Loss()(np.zeros((2, 1)), np.zeros((2, 1)))
