"""Every loss: value and gradient."""

import numpy as np
import pytest

from gpunet.backend import device
from gpunet.losses import (
    BinaryCrossEntropy,
    CosineSimilarity,
    CrossEntropy,
    Hinge,
    Huber,
    KLDivergence,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    SmoothL1,
)

from .peer import DTYPES, TOLERANCE, assert_close, tensor, torch, torch_loss

CPU = device("cpu")
REGRESSION = [MeanSquaredError(), MeanAbsoluteError(), Huber(), Huber(0.3), SmoothL1(), SmoothL1(0.5)]
SHAPES = [(8, 5), (1, 1), (4, 6, 5), (2, 3, 4, 5), (700, 64)]


def compare(loss, prediction, target, tolerance):
    value, gradient = loss.bind(CPU)(prediction, target)
    their_prediction = tensor(prediction, grad=True)
    their_value = torch_loss(loss, their_prediction, tensor(target))
    their_value.backward()
    assert gradient.dtype == prediction.dtype
    assert_close(value, their_value, tolerance, "value")
    assert_close(gradient, their_prediction.grad, tolerance, "gradient")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("label_type", ["int64", "int32", "uint8"])
def test_cross_entropy(shape, dtype, label_type):
    rng = np.random.default_rng(1)
    logits = 3 * rng.normal(size=shape).astype(dtype)
    labels = rng.integers(0, shape[-1], shape[:-1]).astype(label_type)
    compare(CrossEntropy(), logits, labels, TOLERANCE[dtype])
    compare(CrossEntropy(label_smoothing=0.1), logits, labels, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("size", [3.0, 1e4])
def test_cross_entropy_of_probabilities(shape, dtype, smoothing, size):
    rng = np.random.default_rng(1)
    target = rng.random(shape) * (rng.random(shape) < 0.7)  # rows need not add up to 1
    logits = (size * rng.normal(size=shape)).astype(dtype)
    compare(CrossEntropy(label_smoothing=smoothing), logits, target.astype(dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[-1] > 1], ids=str)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_classes_and_labels_that_count_differently(shape, dtype, smoothing):
    rng = np.random.default_rng(1)
    logits, weights = 3 * rng.normal(size=shape).astype(dtype), rng.random(shape[-1])
    labels = rng.integers(0, shape[-1], shape[:-1])
    ignored = np.where(rng.random(shape[:-1]) < 0.4, -7, labels)
    ignored.flat[0] = 0
    compare(CrossEntropy(label_smoothing=smoothing, class_weights=weights), logits, labels, TOLERANCE[dtype])
    compare(CrossEntropy(label_smoothing=smoothing, ignore_label=-7), logits, ignored, TOLERANCE[dtype])
    both = CrossEntropy(label_smoothing=smoothing, class_weights=weights, ignore_label=-7)
    compare(both, logits, ignored, TOLERANCE[dtype])
    compare(both, logits, rng.random(shape).astype(dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_cross_entropy_of_large_logits(size, dtype):
    rng = np.random.default_rng(2)
    logits = (size * rng.normal(size=(16, 5))).astype(dtype)
    compare(CrossEntropy(), logits, rng.integers(0, 5, 16), TOLERANCE[dtype])
    compare(CrossEntropy(label_smoothing=0.1), logits, rng.integers(0, 5, 16), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("loss", REGRESSION, ids=repr)
def test_regression(loss, shape, dtype):
    rng = np.random.default_rng(3)
    prediction, target = rng.normal(size=(2, *shape)).astype(dtype)
    compare(loss, prediction, target, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("loss", REGRESSION, ids=repr)
@pytest.mark.parametrize("size", [0.0, 1e-3, 1.0, 1e4])
def test_regression_far_off_and_on_the_spot(loss, size, dtype):
    prediction = np.linspace(-size, size, 21).astype(dtype)[:, None]  # 0 and ±1, the kinks, among them
    compare(loss, prediction, np.zeros_like(prediction), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("hard", [True, False], ids=["0 or 1", "probabilities"])
@pytest.mark.parametrize("weight", [1.0, 3.0, 0.25])
def test_binary_cross_entropy(shape, dtype, hard, weight):
    rng = np.random.default_rng(4)
    target = rng.random(shape)
    target = (np.round(target) if hard else target).astype(dtype)
    compare(BinaryCrossEntropy(weight), 3 * rng.normal(size=shape).astype(dtype), target, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0.0, 1e2, 1e4])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_binary_cross_entropy_of_large_logits(size, dtype, probability, weight):
    """Logits up to ±1e4: the value is their size where they are wrong, 0 where they are right, and never inf or NaN.

    One logit at a time, values are held to the tolerance relative to max(1, |z|): for z = -37 and target 0 torch
    gives 0 instead of 1e-16, the difference of two numbers of size 37.
    """
    logits = np.linspace(-size, size, 41).astype(dtype)[:, None]
    targets = np.full_like(logits, probability)
    loss = BinaryCrossEntropy(weight).bind(CPU)
    compare(loss, logits, targets, TOLERANCE[dtype])
    for z, t in zip(logits, targets, strict=True):
        ours, theirs = loss(z, t)[0], torch_loss(loss, tensor(z), tensor(t))
        assert abs(float(ours) - theirs.item()) <= TOLERANCE[dtype] * max(1.0, abs(float(z[0])))


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_of_minus_infinity_rule_a_class_out(dtype):
    logits = np.array([[0.5, -np.inf, 1.0], [-np.inf, 2.0, -np.inf]], dtype)
    compare(CrossEntropy(), logits, np.array([2, 1]), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_hinge(shape, dtype, size):
    rng = np.random.default_rng(5)
    scores, targets = size * rng.normal(size=shape), np.where(rng.random(shape) < 0.5, -1, 1)
    compare(Hinge(), scores.astype(dtype), targets.astype(dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_poisson(shape, dtype):
    rng = np.random.default_rng(6)
    z, counts = 2 * rng.normal(size=shape).astype(dtype), rng.poisson(3.0, shape).astype(dtype)
    compare(Poisson(), z, counts, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_poisson_of_large_logits(dtype):
    z, counts = np.linspace(-1e4, 80, 21).astype(dtype)[:, None], np.full((21, 1), 2, dtype)
    compare(Poisson(), z, counts, TOLERANCE[dtype])
    assert np.isinf(Poisson().bind(CPU)(z + z.dtype.type(1e4), counts)[0])
    assert torch.isinf(torch_loss(Poisson(), tensor(z + z.dtype.type(1e4)), tensor(counts)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_kl_divergence(shape, dtype, size):
    rng = np.random.default_rng(7)
    t = rng.random(shape) * (rng.random(shape) < 0.7) + 1e-3 * (np.arange(shape[-1]) == 0)  # zeros among them
    z = torch.log_softmax(tensor(size * rng.normal(size=shape)), -1).numpy()
    compare(KLDivergence(), z.astype(dtype), (t / t.sum(-1, keepdims=True)).astype(dtype), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[-1] > 1], ids=str)
@pytest.mark.parametrize("size", [1.0, 1e4, 1e-4])
def test_cosine_similarity(shape, dtype, size):
    rng = np.random.default_rng(8)
    p, t = (size * rng.normal(size=(2, *shape))).astype(dtype)
    compare(CosineSimilarity(), p, t, TOLERANCE[dtype])
    p, t = p.reshape(-1, shape[-1]), t.reshape(-1, shape[-1])
    theirs = torch.nn.functional.cosine_embedding_loss(tensor(p), tensor(t), torch.ones(len(p)))
    if size >= 1:  # it adds 1e-12 to the squares of the norms
        assert_close(CosineSimilarity().bind(CPU)(p, t)[0], theirs, max(TOLERANCE[dtype], 1e-11), "value")


@pytest.mark.parametrize("dtype", DTYPES)
def test_cosine_similarity_of_nothing(dtype):
    p, t = np.array([[0.0, 0.0], [1.0, 2.0]], dtype), np.array([[3.0, 4.0], [0.0, 0.0]], dtype)
    compare(CosineSimilarity(), p, t, TOLERANCE[dtype])
