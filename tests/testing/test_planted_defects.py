"""Defects that the suites must find, beside a twin without it: all of them are easily made and hardly seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from gpunet import layers, losses, optim
from gpunet.formula import random_bits, sigmoid, total
from gpunet.initializers import HeNormal, Zeros
from gpunet.layer import Layer
from gpunet.pointwise import Pointwise
from gpunet.testing import LayerSpec, LossSpec, OptimizerSpec
from gpunet.testing import layers as layer_checks
from gpunet.testing import losses as loss_checks
from gpunet.testing import optimizers as optimizer_checks
from gpunet.testing.specs import Case

CHECKS = {LayerSpec: layer_checks.CHECKS, LossSpec: loss_checks.CHECKS, OptimizerSpec: optimizer_checks.CHECKS}


def failures(make, spec, device):
    """The messages of all checks that fail, by check."""
    case, found = Case.of(make, spec), {}
    for check in CHECKS[type(spec)]:
        for dtype in check.dtypes if check.applies(spec) else ():
            try:
                check(case, device, dtype, 0)
            except Exception as error:  # an empty batch may not even fit a wrong formula
                found[check.name] = str(error)
    return found


class Swish(Pointwise):
    def formula(self, xp, x, *operands):
        return x * sigmoid(x)

    def derivative(self, xp, dy, x, y, *operands):
        s = sigmoid(x)
        return dy * (s + x * s * (1 - s))


class HalfSwish(Swish):
    """A gradient without its second term."""

    def derivative(self, xp, dy, x, y, *operands):
        return dy * sigmoid(x)


SWISH = LayerSpec((5, 4), lambda x, p: x / (1 + np.exp(-x)), maps=True)


@dataclass(eq=False, kw_only=True, repr=False)
class Affine(Layer):
    """A dense layer with as many outputs as inputs, where a transposed weight fits as well."""

    def setup(self, shape):
        self.weight = self.parameter("weight", (shape[-1], shape[-1]), HeNormal())
        self.bias = self.parameter("bias", shape[-1:], Zeros())
        return shape

    def forward(self, x, ctx):
        return self.backend.gemm(x, self.weight.value) + self.bias.value, x

    def backward(self, dy, saved, ctx):
        xp = self.backend.xp
        out, accumulate = self.weight.grad_target()
        self.backend.gemm(saved, dy, transpose_a=True, out=out, accumulate=accumulate)
        self.bias.add_grad(self.summed(xp, dy))
        return self.backend.gemm(dy, self.weight.value, transpose_b=True)

    def summed(self, xp, dy):
        return xp.sum(dy, axis=0)


class TransposedForward(Affine):
    def forward(self, x, ctx):
        return self.backend.gemm(x, self.weight.value, transpose_b=True) + self.bias.value, x


class TransposedBackward(Affine):
    def backward(self, dy, saved, ctx):
        super().backward(dy, saved, ctx)
        return self.backend.gemm(dy, self.weight.value)


class SummedOverFeatures(Affine):
    """The wrong axis: the batch is as large as the layer, so that it fits."""

    def summed(self, xp, dy):
        return xp.sum(dy, axis=1)


AFFINE = LayerSpec((4, 4), lambda x, p: np.einsum("ni,io->no", x, p["weight"]) + p["bias"])


class LayerNormOfPyTorch(layers.LayerNorm):
    """eps outside of the square root."""

    def _normalized(self, xp, x):
        centred = x - xp.mean(x, axis=-1, keepdims=True)
        r = 1 / (xp.sqrt(xp.mean(centred * centred, axis=-1, keepdims=True)) + self.eps)
        return centred * r, r


def normalized(x, p):
    h = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return h * p["scale"] + p["shift"]


class Scaled(layers.Dropout):
    pass


class Unscaled(layers.Dropout):
    """The mean of the outputs is not that of the inputs."""

    def formula(self, xp, x, *operands):
        return xp.where(random_bits(x, *operands) >= round(self.rate * 2**32), x, 0.0)


class OtherMask(layers.Dropout):
    """Backward draws anew."""

    def derivative(self, xp, dy, x, y, seed, draw, step):
        return self.formula(xp, dy, seed, step, draw)


def dropped(x, p):
    from layer_specs import bits

    return np.where(bits(x.shape, 0) >= 0.25 * 2**32, x, 0) / 0.75


class SwappedBetas(optim.Adam):
    @property
    def slots(self):
        self.swapped = optim.Adam(beta1=self.beta2, beta2=self.beta1)
        return super().slots

    def formula(self, xp, p, g, *rest):
        return self.swapped.formula(xp, p, g, *rest)


def adam(p, g, state, t):
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * g**2
    return p - 1e-3 * (state["m"] / (1 - 0.9**t)) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)


class Squares(losses.MeanSquaredError):
    def formula(self, xp, prediction, target, weight, *more):
        e = prediction - target
        return total(weight * e * e), 2 * weight * e


class WithoutTwo(Squares):
    def formula(self, xp, prediction, target, weight, *more):
        value, gradient = super().formula(xp, prediction, target, weight)
        return value, gradient / 2


SQUARES = LossSpec((6, 4), lambda p, t: (np.square(p - t).mean(), 2 * (p - t) / p.size))
DEFECTS = {
    "missing term": (Swish, HalfSwish, SWISH, {"backward": "the gradient of the input"}),
    "transposed forward": (Affine, TransposedForward, AFFINE, {"forward": "the output", "backward": "the gradient of"}),
    "transposed backward": (Affine, TransposedBackward, AFFINE, {"backward": "the gradient of the input"}),
    "wrong axis": (Affine, SummedOverFeatures, AFFINE, {"backward": "the gradient of 'bias'"}),
    "wrong eps": (layers.LayerNorm, LayerNormOfPyTorch, LayerSpec((5, 4), normalized), {"forward": "the output"}),
    "biased dropout": (
        lambda: Scaled(0.25),
        lambda: Unscaled(0.25),
        LayerSpec((5, 4), dropped, maps=True),
        {"forward": "the output"},
    ),
    "other mask": (
        lambda: Scaled(0.25),
        lambda: OtherMask(0.25),
        LayerSpec((5, 4), dropped, maps=True),
        {"backward": "the gradient of the input"},
    ),
    "swapped betas": (optim.Adam, SwappedBetas, OptimizerSpec(adam), {"steps": "the weight '0.weight'"}),
    "without 2": (
        Squares,
        WithoutTwo,
        SQUARES,
        {"values": "the gradient of the prediction", "derivative": "the gradient of the prediction"},
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found_and_named_and_its_twin_is_not(defect, cpu):
    healthy, wrong, spec, expected = DEFECTS[defect]
    assert failures(healthy, spec, cpu) == {}
    found = failures(wrong, spec, cpu)
    for check, tensor in expected.items():
        assert found[check].startswith(f"{type(wrong()).__name__} on numpy in float"), found
        assert tensor in found[check]
        assert "is off by" in found[check]
        assert "is allowed" in found[check]


def test_a_device_that_computes_otherwise_is_found(cpu, monkeypatch):
    """A defect of a backend, which the spec's formula and finite differences could miss."""
    gemm = type(cpu).gemm

    def rounding(self, a, b, **options):
        if a.dtype == np.float32:
            a, b = (x.astype(np.float16).astype(np.float32) for x in (a, b))
        return gemm(self, a, b, **options)

    monkeypatch.setattr(type(cpu), "gemm", rounding)
    found = failures(Affine, AFFINE, cpu)
    assert found.keys() == {"forward", "agreement", "special_values"}
    assert "Affine on numpy in float32, seed 0: the output is off by" in found["agreement"]
