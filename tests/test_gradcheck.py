"""gradcheck finds the mistakes it is there for."""

from __future__ import annotations

import numpy as np
import pytest

import gpunet as gn
from gpunet import layers, losses
from gpunet.errors import GradientError
from gpunet.formula import total


class HalfTanh(layers.Tanh):
    def derivative(self, xp, dy, x, y, *operands):
        return dy * (1 - y)  # y² it should be


class Transposed(layers.Dense):
    def parts(self):
        matmul, bias = super().parts()
        forward = matmul.forward

        def wrong(dy, saved, ctx):
            out, _ = matmul.weight.grad_target()
            out[...] = ctx.backend.xp.matrix_transpose(ctx.backend.gemm(saved, dy, transpose_a=True))
            return ctx.backend.gemm(dy, matmul.weight.value, transpose_b=True)

        matmul.forward, matmul.backward = forward, wrong
        return [matmul, bias]


class Doubled(losses.MeanSquaredError):
    def formula(self, xp, prediction, target, weight):
        error = prediction - target
        return total(error * error * weight), error * weight  # a factor 2 is missing


def test_right_gradients_pass_and_are_reported():
    errors = gn.gradcheck(layers.Dense(3), (5, 4))
    assert set(errors) == {"x", "0.weight", "0.bias"}
    assert max(errors.values()) < 1e-8


@pytest.mark.parametrize(
    ("subject", "shape", "tensor"),
    [(HalfTanh(), (4, 3), "x"), (Transposed(4), (5, 4), r"0\.weight"), (Doubled(), (4, 3), "prediction")],
)
def test_wrong_gradients_are_named(subject, shape, tensor):
    with pytest.raises(GradientError, match=rf"{type(subject).__name__}: the gradient of '{tensor}' is off by"):
        gn.gradcheck(subject, shape)


def test_the_layer_given_is_not_touched():
    dense = layers.Dense(3)
    gn.gradcheck(dense, (5, 4))
    assert dense.built is None


def test_kinks_are_stepped_around():
    for seed in range(30):
        assert gn.gradcheck(layers.ReLU(), (20, 10), seed=seed)["x"] < 1e-6


def test_a_target_may_be_given():
    assert gn.gradcheck(losses.CrossEntropy(), (3, 4), target=np.array([0, 3, 1]))["prediction"] < 1e-6
