"""Defects that a single training pass does not show, and healthy layers whose gradients are 0 but for rounding."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet import layers
from gpunet.backend import device as open_device
from gpunet.errors import ArgumentError
from gpunet.layer import Layer
from gpunet.testing import LayerSpec, LossSpec
from gpunet.testing import layers as layer_checks
from gpunet.testing.specs import Case


def failures(make, device, **options):
    case, found = Case.of(make, LayerSpec((5, 4), **options)), {}
    for check in layer_checks.CHECKS:
        for dtype in check.dtypes if check.applies(case.spec) else ():
            try:
                check(case, device, dtype, 0)
            except AssertionError as error:
                found[check.name] = str(error)
    return found


class Forgetful(Layer):
    """Keeps on itself what backward needs."""

    def forward(self, x, ctx):
        self.y = ctx.backend.xp.tanh(x)
        return self.y, None

    def backward(self, dy, saved, ctx):
        return dy * (1 - self.y * self.y)


class Odd(Layer):
    """Wrong on one device, outside training."""

    def forward(self, x, ctx):
        return (1.01 * x if ctx.backend.name == "numpy" and not ctx.training else 1.0 * x), None

    def backward(self, dy, saved, ctx):
        return dy


def test_what_is_kept_on_the_layer_is_found(cpu):
    found = failures(Forgetful, cpu)
    assert list(found) == ["interleaved"]
    assert "Forgetful on numpy in float64, seed 0: the gradient of the input" in found["interleaved"]


def test_what_is_wrong_outside_training_alone_is_found(cpu):
    found = failures(Odd, cpu)
    assert "Odd on numpy in float64, seed 0: the output outside training is off by" in found["agreement"]


@pytest.mark.parametrize("backend_name", ["cpu", "reference"])
def test_a_gradient_that_is_0_but_for_rounding_is_no_alarm(backend_name):
    def nested():
        return layers.Residual(layers.Dense(4), layers.BatchNorm())

    assert not failures(nested, open_device(backend_name), mixes="in training")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LayerSpec(4), "a batch of at least 3 samples, such as (5, 4), but got 4"),
        (lambda: LayerSpec((2, 4)), "a batch of at least 3 samples, such as (5, 4), but got (2, 4)"),
        (lambda: LayerSpec((0, 4)), "but got (0, 4)"),
        (lambda: LayerSpec((5, 4), mixes=True), "mixes is 'never', 'in training' or 'always', but got True"),
        (lambda: LayerSpec((5, 4), np.ones(3)), "reference is a function (x, parameters by name) -> y, but got a ndar"),
        (lambda: LossSpec(()), "a batch of at least 1 samples"),
        (lambda: LossSpec((5, 4), 3), "reference is a function (prediction, target) -> (value, gradient), but got a i"),
    ],
)
def test_specs_that_make_no_sense_are_refused(make, message):
    with pytest.raises(ArgumentError) as caught:
        make()
    assert message in str(caught.value)
