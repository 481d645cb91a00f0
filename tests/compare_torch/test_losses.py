"""Every loss: value and gradient."""

import numpy as np
import pytest

from gpunet.backend import device
from gpunet.losses import BinaryCrossEntropy, CrossEntropy, MeanSquaredError

from .peer import DTYPES, TOLERANCE, assert_close, tensor, torch_loss

CPU = device("cpu")
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


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e30])
def test_cross_entropy_of_large_logits(size, dtype):
    rng = np.random.default_rng(2)
    logits = (size * rng.normal(size=(16, 5))).astype(dtype)
    compare(CrossEntropy(), logits, rng.integers(0, 5, 16), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_mean_squared_error(shape, dtype):
    rng = np.random.default_rng(3)
    prediction, target = rng.normal(size=(2, *shape)).astype(dtype)
    compare(MeanSquaredError(), prediction, target, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("hard", [True, False], ids=["0 or 1", "probabilities"])
def test_binary_cross_entropy(shape, dtype, hard):
    rng = np.random.default_rng(4)
    target = rng.random(shape)
    target = (np.round(target) if hard else target).astype(dtype)
    compare(BinaryCrossEntropy(), 3 * rng.normal(size=shape).astype(dtype), target, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0.0, 1e2, 1e4])
@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_binary_cross_entropy_of_large_logits(size, dtype, probability):
    """Logits up to ±1e4: the value is their size where they are wrong, 0 where they are right, and never inf or NaN.

    One logit at a time, values are held to the tolerance relative to max(1, |z|): for z = -37 and target 0 torch
    gives 0 instead of 1e-16, the difference of two numbers of size 37.
    """
    logits = np.linspace(-size, size, 41).astype(dtype)[:, None]
    targets = np.full_like(logits, probability)
    compare(BinaryCrossEntropy(), logits, targets, TOLERANCE[dtype])
    for z, t in zip(logits, targets, strict=True):
        loss = BinaryCrossEntropy().bind(CPU)
        ours, theirs = loss(z, t)[0], torch_loss(loss, tensor(z), tensor(t))
        assert abs(float(ours) - theirs.item()) <= TOLERANCE[dtype] * max(1.0, abs(float(z[0])))


@pytest.mark.parametrize("dtype", DTYPES)
def test_logits_of_minus_infinity_rule_a_class_out(dtype):
    logits = np.array([[0.5, -np.inf, 1.0], [-np.inf, 2.0, -np.inf]], dtype)
    compare(CrossEntropy(), logits, np.array([2, 1]), TOLERANCE[dtype])
