"""docs/differences.md on losses: what gpunet does, and what torch does instead."""

import inspect

import numpy as np
import pytest

import gpunet
from gpunet.backend import device
from gpunet.errors import ArgumentError, ShapeError
from gpunet.layers import Dense, Sequential
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
from gpunet.optim import SGD

from .peer import tensor, torch

CPU = device("cpu")
functional = torch.nn.functional


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
    assert float(CrossEntropy(ignore_label=-100)(z, np.array([0, -100]))[0]) == pytest.approx(np.log(3))
    assert float(loss(z, np.eye(3)[:2])[0]) == pytest.approx(np.log(3))
    assert functional.cross_entropy(tensor(z), tensor(np.eye(3)[:2])).item() == pytest.approx(np.log(3))
    assert np.isnan(loss(z, np.array([0, -100]))[0])
    assert functional.cross_entropy(tensor(z), torch.tensor([0, -100])).item() == pytest.approx(np.log(3))
    assert np.isfinite(loss(z, np.array([0, 1], np.int32))[0])
    with pytest.raises(RuntimeError, match="Long"):
        functional.cross_entropy(tensor(z), torch.tensor([0, 1], dtype=torch.int32))


def test_a_batch_of_ignored_labels_costs_nothing():
    z, y = np.zeros((2, 3)), np.array([-100, -100])
    value, gradient = CrossEntropy(ignore_label=-100)(z, y)
    assert value == 0
    assert not gradient.any()
    assert torch.isnan(functional.cross_entropy(tensor(z), tensor(y)))


def test_sample_weights_leave_n_alone():
    z, y, w = np.zeros((4, 3)), np.array([0, 1, 2, 0]), np.array([2.0, 0.0, 0.0, 0.0])
    assert float(CrossEntropy()(z, y, sample_weight=w)[0]) == pytest.approx(2 * np.log(3) / 4)
    assert "sample_weight" not in inspect.signature(functional.cross_entropy).parameters


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
    step = gpunet.TrainStep(Sequential(Dense(3)).build((2,), device="cpu"), CrossEntropy(), SGD())
    with pytest.raises(ArgumentError, match="at least"):
        step(np.zeros((0, 2)), np.zeros(0, np.int64))
