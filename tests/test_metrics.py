"""Metrics against numbers computed by hand, what they refuse, and how they are named."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest

from gpunet import losses, metrics
from gpunet.errors import ArgumentError, ArrayError, ShapeError
from gpunet.metrics import TopK, confusion_matrix

CLASSES = ("accuracy", "precision", "recall", "f1")
NUMBERS = ("mae", "rmse", "r2")


def of_classes(prediction, target, loss):
    return [metrics.METRICS[name](prediction, target, loss) for name in CLASSES]


def of_numbers(prediction, target, loss=None):
    values = [np.asarray(a, np.float64) for a in (prediction, target)]
    return [metrics.METRICS[name](*values, loss or losses.MeanSquaredError()) for name in NUMBERS]


def logits(decisions, classes):
    """Logits with the largest at each decision."""
    return np.eye(classes)[np.asarray(decisions)] - 0.5


TRUTH, DECIDED = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 2])
"""Of class 0: 2 right, 3 decided, 3 present. Of class 1: 1, 2, 2. Of class 2: 1, 1, 1. Of class 3 nothing."""


@pytest.mark.parametrize("classes", [3, 4])
def test_several_classes_are_averaged_over_those_that_occur(classes):
    z, loss = logits(DECIDED, classes), losses.CrossEntropy()
    p, r = (2 / 3 + 1 / 2 + 1) / 3, (2 / 3 + 1 / 2 + 1) / 3
    assert of_classes(z, TRUTH, loss) == pytest.approx([4 / 6, p, r, (4 / 6 + 2 / 4 + 2 / 2) / 3])
    assert of_classes(z, np.eye(classes)[TRUTH], loss) == of_classes(z, TRUTH, loss)  # probabilities


def test_a_class_that_is_never_decided_or_never_true_counts_as_0():
    z, y = logits([0, 0, 0, 3], 5), np.array([0, 0, 1, 0])
    assert of_classes(z, y, losses.CrossEntropy()) == pytest.approx(
        [2 / 4, (2 / 3 + 0 + 0) / 3, (2 / 3 + 0 + 0) / 3, (4 / 6 + 0 + 0) / 3]
    )


def test_precision_and_recall_differ_by_what_they_divide_by():
    z, y = logits([0, 0, 0, 1], 2), np.array([0, 1, 1, 1])
    assert of_classes(z, y, losses.CrossEntropy()) == pytest.approx(
        [2 / 4, (1 / 3 + 1) / 2, (1 + 1 / 3) / 2, (2 / 4 + 2 / 4) / 2]
    )


@pytest.mark.parametrize("shape", [(8, 1), (4, 2), (8,), (2, 2, 2)])
@pytest.mark.parametrize(("loss", "negative"), [(losses.BinaryCrossEntropy(), 0), (losses.Hinge(), -1)])
def test_two_values_count_the_positive_class(loss, negative, shape):
    """3 found, 1 false alarm, 2 missed, 2 rightly negative."""
    z = np.array([2.0, 0.1, 5.0, 0.5, -1.0, -0.1, -3.0, 0.0])
    y = np.where(np.array([1, 1, 1, 0, 1, 1, 0, 0]) == 1, 1.0, negative)
    z, y = z.reshape(shape), y.reshape(shape)
    assert of_classes(z, y, loss) == pytest.approx([5 / 8, 3 / 4, 3 / 5, 6 / 9])
    assert confusion_matrix(z, y, loss).tolist() == [[2, 1], [2, 3]]


def test_without_positives_the_positive_class_has_0():
    z = np.array([[-1.0], [-2.0]])
    assert of_classes(z, np.zeros((2, 1)), losses.BinaryCrossEntropy()) == [1, 0, 0, 0]


def test_a_probability_stands_for_the_likelier_class():
    z, t = np.array([[1.0], [1.0], [-1.0], [-1.0]]), np.array([[0.9], [0.1], [0.1], [0.5]])
    assert of_classes(z, t, losses.BinaryCrossEntropy()) == pytest.approx([3 / 4, 1 / 2, 1, 2 / 3])


def test_confusion_matrix_has_the_truth_in_its_rows():
    found = confusion_matrix(logits(DECIDED, 4), TRUTH, losses.CrossEntropy())
    assert found.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert found.dtype == np.int64
    z, y = logits(np.full(300, 126), 127), np.full(300, 125, np.int8)  # numbers that an int8 does not hold
    assert confusion_matrix(z, y, losses.CrossEntropy())[125, 126] == 300


@pytest.mark.parametrize("ignored", [-1, 255, 1])
def test_ignored_labels_count_nowhere(ignored):
    """Sequences (n, T, classes); the ignored label may be a class, or none."""
    loss = losses.CrossEntropy(ignore_label=ignored)
    y = np.array([[0, ignored, 2], [ignored, 2, 0]])
    z = logits([[0, 1, 2], [2, 0, 0]], 3)
    assert of_classes(z, y, loss) == pytest.approx([3 / 4, (2 / 3 + 1) / 2, (1 + 1 / 2) / 2, (4 / 5 + 2 / 3) / 2])
    assert confusion_matrix(z, y, loss).tolist() == [[2, 0, 0], [0, 0, 0], [1, 0, 1]]
    assert TopK(1)(z, y, loss) == 3 / 4


def test_top_k():
    z = np.array([[4.0, 3, 2, 1], [4, 3, 2, 1], [4, 3, 2, 1], [1, 4, 3, 2]])
    y = np.array([0, 1, 2, 3])
    assert [TopK(k)(z, y, losses.CrossEntropy()) for k in (1, 2, 3, 4)] == [1 / 4, 2 / 4, 4 / 4, 1]
    assert TopK(2)(z, np.eye(4)[y], losses.CrossEntropy()) == 2 / 4
    assert TopK(2)(z[None], y[None], losses.CrossEntropy()) == 2 / 4
    assert (TopK(3).name, TopK(3)) == ("top_3", TopK(k=3))


def test_a_tie_is_in_favour_of_the_label_and_nan_is_not():
    y = np.array([2])
    assert TopK(2)(np.array([[1.0, 1, 1, 1]]), y, losses.CrossEntropy()) == 1
    assert TopK(2)(np.array([[3.0, 3, 1, 1]]), y, losses.CrossEntropy()) == 0
    assert TopK(2)(np.array([[3.0, 1, 1, 1]]), y, losses.CrossEntropy()) == 1
    assert TopK(2)(np.full((1, 4), np.nan), y, losses.CrossEntropy()) == 0


def test_top_k_refuses_what_it_cannot_rank():
    for k in (0, 1.5, "5"):
        with pytest.raises(ArgumentError, match=f"whole number k, at least 1, but got {k!r}. 5 is usual"):
            TopK(k)
    with pytest.raises(ArgumentError, match=r"top_5 needs logits of 5 classes or more, but CrossEntropy has 4\. Use"):
        TopK(5)(np.zeros((2, 4)), np.array([0, 1]), losses.CrossEntropy())
    with pytest.raises(
        ArgumentError, match=r"top_1 needs logits of 2 classes .*, but Hinge has one for both\. Use acc"
    ):
        TopK(1)(np.zeros((2, 4)), np.ones((2, 4)), losses.Hinge())
    with pytest.raises(ArgumentError, match="top_1 needs classes, but Poisson has none"):
        TopK(1)(np.zeros((2, 4)), np.ones((2, 4)), losses.Poisson())


def test_numbers():
    """Errors 1, 0, -2, 1; targets with mean 3 and squared deviations 4, 1, 1, 4."""
    expected = [4 / 4, math.sqrt(6 / 4), 1 - 6 / 10]
    p, t = np.array([2.0, 2, 2, 6]), np.array([1.0, 2, 4, 5])
    assert of_numbers(p, t) == pytest.approx(expected)
    assert of_numbers(p[:, None], t[:, None]) == pytest.approx(expected)
    assert of_numbers(t, t) == [0, 0, 1]
    assert of_numbers(np.full(4, 3), t)[2] == pytest.approx(0)


def test_r2_is_averaged_over_the_outputs():
    p, t = np.array([[2.0, 10], [2, 20], [2, 30], [6, 40]]), np.array([[1.0, 10], [2, 20], [4, 30], [5, 50]])
    second = 1 - 100 / (17.5**2 + 7.5**2 + 2.5**2 + 22.5**2)
    assert of_numbers(p, t) == pytest.approx([14 / 8, math.sqrt(106 / 8), (0.4 + second) / 2])
    pairs = [a.reshape(2, 2, 2) for a in (p, t)]  # the last axis holds the outputs
    assert of_numbers(*pairs) == of_numbers(p, t)


@pytest.mark.parametrize("level", [0.0, 0.1, 1e8 / 3])
def test_r2_of_a_constant_target_is_1_or_0(level):
    t = np.full((7, 1), level)
    assert of_numbers(t, t)[2] == 1
    assert of_numbers(t + 1, t)[2] == 0
    varied = np.arange(7.0)[:, None]
    assert of_numbers(np.hstack([t + 1, varied]), np.hstack([t, varied]))[2] == 0.5


def test_what_is_not_a_number_gives_none():
    t = np.array([[1.0], [2.0], [4.0]])
    wrong = np.array([[1.0], [np.nan], [4.0]])
    assert np.isnan([*of_numbers(wrong, t), *of_numbers(t, wrong)]).all()
    assert math.isnan(of_numbers(wrong, np.ones((3, 1)))[2])


def test_nothing_that_counts_gives_nan_without_a_warning():
    z, y, loss = np.zeros((3, 2)), np.full(3, -1), losses.CrossEntropy(ignore_label=-1)
    assert np.isnan([*of_classes(z, y, loss), TopK(1)(z, y, loss)]).all()
    assert not confusion_matrix(z, y, loss).any()
    assert np.isnan(of_classes(np.zeros((0, 1)), np.zeros((0, 1)), losses.BinaryCrossEntropy())).all()
    assert np.isnan(of_numbers(np.zeros((0, 2)), np.zeros((0, 2)))).all()
    assert math.isnan(of_numbers([[1.0]], [[2.0]])[2])


def test_a_loss_of_numbers_can_ignore_some():
    class Known(losses.MeanSquaredError):
        def counted(self, target):
            return ~np.isnan(target)

    p = np.array([[2.0, 1], [2, 0], [2, 2], [6, 3], [9, 9]])
    t = np.array([[1.0, 1], [2, np.nan], [4, 2], [5, 3], [np.nan, np.nan]])
    assert of_numbers(p, t, Known()) == pytest.approx([4 / 7, math.sqrt(6 / 7), (0.4 + 1) / 2])
    gone = np.where(np.arange(2) == 1, np.nan, t)
    assert math.isnan(of_numbers(p, gone, Known())[2])
    same = np.where(np.isnan(t), np.nan, -0.1)
    assert of_numbers(p, same, Known())[2] == 0


def test_float32_is_summed_in_float64():
    t = np.tile(np.array([[4096.0], [4097.0]], np.float32), (5000, 1))
    p = np.full_like(t, 4096.25)
    values = [metrics.METRICS[name](p, t, losses.MeanSquaredError()) for name in NUMBERS]
    assert values == pytest.approx([0.5, math.sqrt(0.3125), 1 - 0.3125 / 0.25], rel=1e-12)


def test_classes_and_numbers_are_not_mixed_up():
    for name in CLASSES:
        with pytest.raises(ArgumentError, match=f"{name} needs classes, but Huber has none. Leave the metric out"):
            metrics.METRICS[name](np.zeros((2, 1)), np.zeros((2, 1)), losses.Huber())
    with pytest.raises(ArgumentError, match="confusion_matrix needs classes, but Huber has none"):
        confusion_matrix(np.zeros((2, 1)), np.zeros((2, 1)), losses.Huber())
    for name in NUMBERS:
        with pytest.raises(ArgumentError, match=f"{name} needs numbers, but Hinge has classes. Use accuracy instead"):
            metrics.METRICS[name](np.ones((2, 1)), np.ones((2, 1)), losses.Hinge())


def test_targets_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match=r"one shape, but got \(2, 1\) and \(2,\)"):
        metrics.mae(np.zeros((2, 1)), np.zeros(2), losses.MeanSquaredError())
    with pytest.raises(ShapeError, match=r"one shape, but got \(3, 1\) and \(1, 1\)"):
        metrics.r2(np.zeros((3, 1)), np.zeros((1, 1)), losses.MeanSquaredError())
    with pytest.raises(ShapeError, match=r"but got \(2, 1\) and \(2,\)"):
        metrics.accuracy(np.zeros((2, 1)), np.zeros(2), losses.BinaryCrossEntropy())
    with pytest.raises(ArgumentError, match=r"labels must be in \[0, 2\)"):
        confusion_matrix(np.zeros((2, 2)), np.array([0, 2]), losses.CrossEntropy())
    with pytest.raises(ArrayError, match="integer labels"):
        metrics.f1(np.zeros((2, 2)), np.zeros(2), losses.CrossEntropy())


def test_inputs_stay_unmodified():
    z, y, t = logits(DECIDED, 3), TRUTH.copy(), np.ones((6, 3))
    for array in (z, y, t):
        array.flags.writeable = False
    of_classes(z, y, losses.CrossEntropy(ignore_label=0))
    TopK(2)(z, y, losses.CrossEntropy(ignore_label=0))
    of_numbers(z, t)


def own(prediction, target, loss):
    return np.float32(0.25)


def test_names_and_callables_are_resolved():
    assert list(metrics.METRICS) == [*CLASSES, *NUMBERS]
    found = metrics.resolve(["f1", TopK(2), own, metrics.recall])
    assert found == {"f1": metrics.f1, "top_2": TopK(2), "own": own, "recall": metrics.recall}
    assert metrics.resolve("r2") == {"r2": metrics.r2}
    assert metrics.resolve([]) == {}


def test_what_cannot_be_resolved_is_refused():
    known = r"Use one of: accuracy, precision, recall, f1, mae, rmse, r2\."
    with pytest.raises(ArgumentError, match=rf"there is no metric 'speed'\. {known}"):
        metrics.resolve(["f1", "speed"])
    for wrong in (5, None, ["f1"]):
        with pytest.raises(ArgumentError, match="there is no metric "):
            metrics.resolve([wrong])
    for twice in (["f1", "f1"], [metrics.f1, "f1"], [TopK(3), TopK(3)]):
        with pytest.raises(ArgumentError, match=r"a name of its own, but '(f1|top_3)' is there twice\. Leave one out"):
            metrics.resolve(twice)

    def loss(prediction, target, loss): ...

    with pytest.raises(ArgumentError, match="'loss' is there twice"):
        metrics.resolve([loss])
    with pytest.raises(ArgumentError, match=r"a metric needs a name, but functools\.partial.* has none"):
        metrics.resolve([functools.partial(own)])


def test_evaluate_takes_metrics_resolved_or_not():
    z, loss = logits(DECIDED, 3), losses.CrossEntropy()
    expected = {"loss": metrics.evaluate(z, TRUTH, loss, [])["loss"], "accuracy": 4 / 6, "own": 0.25, "top_3": 1.0}
    asked = ["accuracy", own, TopK(3)]
    found = metrics.evaluate(z, TRUTH, loss, metrics.resolve(asked))
    assert found == metrics.evaluate(z, TRUTH, loss, asked) == expected
    assert {type(value) for value in found.values()} == {float}
    assert metrics.evaluate(z, TRUTH, loss, {"hits": metrics.accuracy})["hits"] == 4 / 6
    weighted = metrics.evaluate(z, TRUTH, loss, ["accuracy"], np.full(6, 2.0))
    assert weighted == pytest.approx({"loss": 2 * expected["loss"], "accuracy": 4 / 6})
