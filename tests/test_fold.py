"""Neighbouring pointwise layers run as one formula, forward and backward, and give what they give one by one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from kit import draw, error, run

from gpunet import layers
from gpunet.layer import Layer
from gpunet.parameter import Parameter
from gpunet.pointwise import Group, Pointwise


@dataclass(eq=False, kw_only=True, repr=False)
class Scale(Pointwise):
    """y = a x, a of shape (k,) or (1,): a layer of a user, with a parameter."""

    per_feature: bool = True

    def setup(self, shape):
        self.a = self.parameter("a", (shape[-1] if self.per_feature else 1,), lambda seed, path, s: np.full(s, 2.0))
        return shape

    def operands(self, ctx):
        return (self.a,)

    def formula(self, xp, x, *operands):
        return operands[0] * x

    def derivative(self, xp, dy, x, y, *operands):
        return operands[0] * dy, dy * x


class Square(Pointwise):
    """y = x²: needs x in backward."""

    def formula(self, xp, x, *operands):
        return x * x

    def derivative(self, xp, dy, x, y, *operands):
        return 2 * x * dy


def model_of(backend, *parts, shape=(4,)):
    return layers.Sequential(*parts).build(shape, device=backend, dtype="float64", seed=2)


def runs(model):
    return [
        "+".join(type(part).__name__ for part in layer.layers) if isinstance(layer, Group) else type(layer).__name__
        for layer in model.chain().run
    ]


def test_neighbours_are_merged_across_nested_layers(cpu):
    inner = layers.Sequential(layers.ReLU(), layers.Dense(3), layers.Tanh())
    model = model_of(cpu, layers.Dense(5), inner, layers.Dropout(0.1), layers.Flatten(), layers.Sigmoid())
    assert runs(model) == ["MatMul", "Bias+ReLU", "MatMul", "Bias+Tanh+Dropout", "Flatten", "Sigmoid"]


def network():
    dense, scale = layers.Dense(4), Scale()
    return [
        *(layers.ReLU(), dense, scale, scale, Square(), layers.Dropout(0.3), layers.Sequential(layers.Tanh(), dense)),
        *(Scale(per_feature=False), scale, layers.Sigmoid(), layers.Dropout(0.2)),
    ]


def test_merged_and_unmerged_agree(backend):
    model = model_of(backend, *network())
    x, dy = draw(0, 6, 4), draw(1, 6, 4)
    merged, unmerged = run(model, x, dy), run(model, x, dy, observe=lambda layer, y: None)
    assert merged.keys() == unmerged.keys() == {"y", "dx", *(p.name for p in model.store.parameters)}
    for name, value in merged.items():
        assert error(value, unmerged[name]) <= 1e-13, name


def test_layers_used_twice_have_summed_gradients(cpu):
    model = model_of(cpu, *network())
    x, dy = draw(0, 6, 4), draw(1, 6, 4)
    gradients = run(model, x, dy)
    for p in model.store.parameters:
        direction = draw(9, *p.shape)
        values, kept = [], p.value.copy()
        for sign in (1, -1):
            p.value[...] = kept + sign * 1e-6 * direction
            values.append(np.sum(run(model, x, dy)["y"] * dy))
        p.value[...] = kept
        slope = (values[0] - values[1]) / 2e-6
        assert abs(slope - np.sum(gradients[p.name] * direction)) <= 1e-6 * max(1, abs(slope)), p.name


@pytest.mark.parametrize(
    ("parts", "saves"),
    [
        ([layers.Dense(3), layers.ReLU()], "y"),
        ([layers.Dense(3), layers.Tanh(), layers.Dropout(0.5)], "x"),
        ([layers.Dense(3)], None),
        ([layers.Dense(3), Square()], "x"),
    ],
)
def test_what_a_group_saves(parts, saves, cpu):
    model = model_of(cpu, *parts)
    ctx = model.context(training=True)
    _, saved = model.forward(cpu.asarray(draw(0, 2, 4)), ctx)
    plan, arrays, operands = saved[1][1]
    assert plan.saves == saves
    assert len(arrays) == len(operands) + (saves is not None)


def test_bias_and_relu_run_in_place_on_the_product(cpu):
    model = model_of(cpu, layers.Dense(3), layers.ReLU(), layers.Dense(2))
    product, group = model.chain().run[:2]
    assert product.fresh_output
    assert group.in_place
    assert group.dy_in_place
    assert not model.chain().run[-1].dy_in_place, "the caller's dy would be overwritten"


def test_dropout_leaves_the_group_outside_training(cpu):
    model = model_of(cpu, layers.Dropout(0.5), layers.Dropout(0.0))
    x = cpu.asarray(draw(0, 3, 4))
    y, saved = model.forward(x, model.context(training=False, needs_input_grad=True))
    assert y is x
    dy = cpu.asarray(draw(1, 3, 4))
    assert model.backward(dy, saved, model.context(training=False, needs_input_grad=True)) is dy


def test_draws_are_numbered_in_forward_order(cpu):
    one = layers.Dropout(0.5)
    model = model_of(cpu, one, one, layers.Flatten(), one)
    masks = []
    ctx = model.context(training=True, step=1, seed=7, observe=lambda layer, y: masks.append(np.asarray(y) != 0))
    model.forward(np.ones((50, 4)), ctx)
    assert ctx.draws == 3
    ctx = model.context(training=True, step=1, seed=7)
    y, _ = model.forward(np.ones((50, 4)), ctx)
    assert ctx.draws == 3
    assert np.array_equal(y != 0, masks[-1])
    assert masks[0].mean() > masks[1].mean() > masks[-1].mean(), "a layer used again drew the same mask"


def test_a_layer_that_defines_nothing_says_so(cpu):
    class Nothing(Layer):
        pass

    class NoFormula(Pointwise):
        pass

    model = model_of(cpu, Nothing())
    with pytest.raises(NotImplementedError, match="Nothing defines neither forward and backward, nor parts"):
        model.predict(np.ones((1, 4)))
    with pytest.raises(NotImplementedError, match=r"NoFormula does not define (formula|derivative)"):
        model_of(cpu, NoFormula()).predict(np.ones((1, 4)))


def test_a_parameter_operand_gets_its_gradient_in_its_shape(backend):
    model = model_of(backend, Scale(per_feature=False), Scale())
    assert all(isinstance(p, Parameter) for p in model.parameters())
    gradients = run(model, draw(0, 3, 4), draw(1, 3, 4))
    assert error(gradients["0.a"], np.array([np.sum(2 * draw(0, 3, 4) * draw(1, 3, 4))])) <= 1e-14
    assert error(gradients["1.a"], np.einsum("nk,nk->k", 2 * draw(0, 3, 4), draw(1, 3, 4))) <= 1e-14
