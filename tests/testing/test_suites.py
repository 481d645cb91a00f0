"""What the suites take, make and say."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet import layers, losses, optim, testing
from gpunet.errors import ArgumentError
from gpunet.layer import Layer
from gpunet.testing import LayerSpec, LossSpec, OptimizerSpec, layer_suite, loss_suite, optimizer_suite
from gpunet.testing import layers as layer_checks
from gpunet.testing import losses as loss_checks
from gpunet.testing import optimizers as optimizer_checks
from gpunet.testing.judging import Site
from gpunet.testing.rig import Rig
from gpunet.testing.specs import Case


@pytest.fixture
def device(cpu):
    """One is enough here."""
    return cpu


TestTanh = layer_suite(layers.Tanh, LayerSpec(shape=(3, 4)))
TestModel = layer_suite(lambda: layers.Sequential(layers.Dense(3), layers.Tanh()), LayerSpec((5, 4), name="model"))
TestHuber = loss_suite(losses.Huber, LossSpec(shape=(5, 4)))
TestAdam = optimizer_suite(optim.Adam)
"""Without formulas of their own: compared with the reference device."""


def test_public_names():
    assert {name: getattr(testing, name) for name in testing.__all__}
    assert dir(testing) == testing.__all__
    with pytest.raises(AttributeError, match=r"module 'gpunet\.testing' has no attribute 'suite'\. It has: LayerSpec"):
        testing.suite  # noqa: B018


def test_a_check_that_a_spec_says_nothing_for_is_left_out():
    assert not hasattr(TestTanh, "test_forward")
    assert hasattr(layer_suite(layers.Tanh, LayerSpec((3, 4), lambda x, p: np.tanh(x))), "test_forward")
    assert not hasattr(layer_suite(layers.Tanh, LayerSpec((3, 4), special=())), "test_special_values")


@pytest.mark.parametrize("made", [layers.Tanh(), losses.Huber(), 3, "Tanh"])
def test_what_was_made_already_is_refused(made):
    with pytest.raises(ArgumentError, match=r"a class, or a function without arguments .* Write `lambda: …`"):
        layer_suite(made, LayerSpec((3, 4)))


def test_the_wrong_kind_is_refused(cpu):
    with pytest.raises(ArgumentError, match="layer_suite is for layers, but Huber makes Huber"):
        layer_checks.few_samples(Case.of(losses.Huber, LayerSpec((3, 4))), cpu, "float32", 0)
    with pytest.raises(ArgumentError, match="loss_suite is for losses, but Tanh makes Tanh"):
        loss_checks.terms(Case.of(layers.Tanh, LossSpec((3, 4), target=lambda s, n: np.zeros(s))), cpu, "float32", 0)
    with pytest.raises(ArgumentError, match="optimizer_suite is for optimizers, but Tanh makes Tanh"):
        optimizer_checks.steps(Case.of(layers.Tanh, OptimizerSpec()), cpu, "float32", 0)


def test_titles():
    def title(make, name=None):
        return Case.of(make, LayerSpec((3, 4), name=name)).title

    assert title(layers.ReLU) == title(lambda: layers.ReLU()) == title(layers.ReLU, "re_lu") == "ReLU"
    assert title(lambda: layers.LeakyReLU(0.3), "steep") == "LeakyReLU 'steep'"


def test_messages():
    site, a = Site("Tanh", "cpu", "float32", 3), np.ones((2, 3))
    site.close("output", a + 0.5, a, 0.5, "b")
    with pytest.raises(AssertionError, match=r"^Tanh on cpu in float32, seed 3: the output is off by 1.00e-01 from"):
        site.close("output", a + 0.1, a, 0.01, "b")
    with pytest.raises(AssertionError, match=r"the output has shape \(3,\), but b has \(2, 3\)"):
        site.close("output", a[0], a, 1.0, "b")
    for wrong in (np.nan, np.inf):
        with pytest.raises(AssertionError, match="the output is NaN or infinite at other places than b"):
            site.close("output", np.where(a > 0, wrong, a), a, 1.0, "b")
    with pytest.raises(AssertionError, match="the output has data type float64"):
        site.kept("output", a)


def test_other_seeds_give_other_inputs(cpu):
    case = Case.of(layers.Tanh, LayerSpec((3, 4)))
    one, two = (Rig(case, cpu, "float32", seed).x for seed in (0, 1))
    assert not np.array_equal(one, two)
    assert np.array_equal(one, one.astype(np.float32))
    assert np.abs(one).min() >= 0.00999


def test_samples_that_act_on_each_other_must_be_declared(cpu):
    case = Case.of(layers.BatchNorm, LayerSpec((5, 4)))
    with pytest.raises(AssertionError, match=r"BatchNorm on numpy .* the output has NaN in other samples .* say mixes"):
        layer_checks.special_values(case, cpu, "float32", 0)


class Halved(Layer):
    """y = x / 2, written into what is given."""

    writes = ("input", "dy")

    def forward(self, x, ctx):
        return self.halved(x, "input"), None

    def backward(self, dy, saved, ctx):
        return self.halved(dy, "dy")

    def halved(self, a, name):
        if name not in self.writes:
            return 0.5 * a
        a *= 0.5
        return self.backend.asarray(np.array(a))


class HalvedInput(Halved):
    writes = ("input",)


class HalvedDy(Halved):
    writes = ("dy",)


class HalvedCopies(Halved):
    writes = ()


@pytest.mark.parametrize(("make", "tensor"), [(HalvedInput, "input"), (HalvedDy, "dy"), (Halved, "input")])
def test_a_layer_that_writes_into_what_it_is_given_is_found(make, tensor, cpu):
    layer_checks.layouts(Case.of(HalvedCopies, LayerSpec((5, 4))), cpu, "float64", 0)
    with pytest.raises(AssertionError, match=f"the {tensor} is off by .* what was given, contiguous: the layer wrote"):
        layer_checks.layouts(Case.of(make, LayerSpec((5, 4))), cpu, "float64", 0)


class Forgetful(layers.Dense):
    """A second pass replaces the gradients of the first."""

    def setup(self, shape):
        output = super().setup(shape)
        self.weight = self._parts[0].parameters()[0]
        return output

    def parts(self):
        return [self]

    def forward(self, x, ctx):
        return self.backend.gemm(x, self.weight.value), x

    def backward(self, dy, saved, ctx):
        self.weight.grad_target()
        self.backend.gemm(saved, dy, transpose_a=True, out=self.weight.grad)
        return self.backend.gemm(dy, self.weight.value, transpose_b=True)


def test_gradients_that_do_not_add_are_found(cpu):
    case = Case.of(lambda: Forgetful(3, use_bias=False), LayerSpec((5, 4)))
    layer_checks.agreement(case, cpu, "float64", 0)
    with pytest.raises(AssertionError, match=r"the gradient of 'weight' is off by .* from twice that of one pass"):
        layer_checks.twice(case, cpu, "float64", 0)
