"""Sequential as a model: building, refusing, predicting, showing."""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest
from kit import draw

from gpunet import layers
from gpunet.errors import ArgumentError, ArrayError, NotBuiltError, ShapeError


def small(backend, **options):
    model = layers.Sequential(layers.Dense(4, name="hidden"), layers.ReLU(), layers.Dense(2))
    return model.build((3,), device=backend, **options)


def test_repr_is_the_code_that_makes_it():
    model = layers.Sequential(layers.Dense(4, use_bias=False, name="a"), layers.Dropout(0.5), layers.Sequential())
    text = "Sequential(\n  Dense(4, name='a', use_bias=False),\n  Dropout(0.5),\n  Sequential(),\n)"
    assert repr(model) == text
    again = eval(repr(model), vars(layers))
    assert repr(again) == text
    assert model.layers[0].config()["units"] == 4
    assert model.config()["layers"] == model.layers


def test_summary(cpu, capsys):
    dense = layers.Dense(3)
    model = layers.Sequential(dense, layers.ReLU(), dense).build((3,), device=cpu)
    model.freeze("*.bias")
    model.summary()
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"0: Dense\(3\) +\(…, 3\) +12", lines[2])
    assert re.fullmatch(r"2: Dense\(3\) +\(…, 3\) +shared", lines[4])
    assert "12 parameters, 48 bytes of float32 on numpy" in lines
    assert "3 of them frozen" in lines
    assert lines[-1] == "runs as: MatMul | Bias + ReLU | MatMul | Bias"


def test_predict_runs_in_batches(backend):
    model, x = small(backend), draw(0, 7, 3)
    whole = model.predict(x)
    assert isinstance(whole, np.ndarray)
    assert whole.dtype == np.float32
    assert np.allclose(model.predict(x, batch_size=2), whole, atol=1e-6)
    assert model.predict(x[:0]).shape == (0, 2)
    assert np.allclose(model.predict(x.tolist()), whole)


def test_an_unbuilt_model_says_so():
    model = layers.Sequential(layers.Dense(4))
    for use in (lambda: model.predict(np.ones((1, 3))), model.get_weights, model.summary):
        with pytest.raises(NotBuiltError, match=r"has no parameters yet\. Call model\.build\(shape\)"):
            use()
    with pytest.raises(NotBuiltError, match="has no parameters yet"):
        model.context(training=True)


def test_build_refuses_nonsense_and_leaves_the_model_unbuilt(cpu):
    model = layers.Sequential(layers.Flatten(), layers.Dense(4), layers.Dense(2))
    for shape in (3, (0,), (-1, 2), (2.0,)):
        with pytest.raises(ShapeError, match="build takes the shape of one sample"):
            model.build(shape, device=cpu)
    with pytest.raises(
        ArgumentError, match="dtype must be one of float32, float64, mixed_float16, mixed_bfloat16, but got 'float16'"
    ):
        model.build((3,), device=cpu, dtype="float16")
    twice = layers.Dense(3)
    failing = layers.Sequential(layers.Dense(4), twice, twice, layers.Dense(1))
    with pytest.raises(ShapeError, match="Make a second layer"):
        failing.build((3,), device=cpu)
    assert failing.built is None
    assert all(layer.built is None for layer in failing.layers)
    failing.layers[0] = layers.Dense(3)
    assert failing.build((3,), device=cpu).predict(np.ones((2, 3))).shape == (2, 1)
    with pytest.raises(ArgumentError, match=r"is built already, for \(…, 3\)"):
        failing.build((3,), device=cpu)
    with pytest.raises(ShapeError, match=r"Dense '0' needs inputs \(…, features\) but got \(…,\)"):
        layers.Sequential(layers.Dense(1)).build((), device=cpu)


def test_forward_names_layer_value_and_remedy(backend):
    model = small(backend)
    ctx = model.context(training=False)
    with pytest.raises(ShapeError) as caught:
        model.forward(backend.zeros((32, 3, 28), "float32"), ctx)
    assert str(caught.value) == (
        "Dense 'hidden' was built for inputs of shape (…, 3) but got (32, 3, 28). Put a Flatten() before it."
    )
    with pytest.raises(ShapeError, match="Reshape the input"):
        model.forward(backend.zeros((32, 4), "float32"), ctx)
    with pytest.raises(ArrayError, match=r"its forward takes arrays from there, but got a builtins\.list"):
        model.forward([[1.0, 2.0, 3.0]], ctx)
    if backend.name != "numpy" and not backend.owns(np.zeros(1)):
        with pytest.raises(ArrayError, match=r"but got a numpy\.ndarray\. Use model\.backend\.asarray\(x\)"):
            model.forward(np.zeros((2, 3), np.float32), ctx)


def test_context_refuses_keys_that_do_not_fit(cpu):
    for name, value in (("seed", -1), ("step", 2**32)):
        with pytest.raises(ArgumentError, match=rf"{name} must be in \[0, 2\*\*32\), but got {value}"):
            small(cpu).context(training=True, **{name: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Sequential(layers.Dense), "Sequential takes layers, but got <class"),
        (lambda: layers.Sequential(layers.ReLU(name="a"), layers.Tanh(name="a")), "'a' occurs twice"),
        (lambda: layers.Dense(0), "whole number of units, at least 1, but got 0"),
        (lambda: layers.Dense(2.5), "but got 2.5"),
        (lambda: layers.Dense(2, name="a.b"), "without '.'"),
        (lambda: layers.Dense(2, name="3"), "but got '3'"),
        (lambda: layers.Dropout(1.0), r"rate in \[0, 1\), but got 1.0"),
        (lambda: layers.Dropout(-0.1), "but got -0.1"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_a_layer_of_another_model_is_refused_and_left_alone(cpu):
    shared = layers.Dense(4)
    first = layers.Sequential(shared).build((3,), device=cpu)
    with pytest.raises(ArgumentError, match="Dense '0' belongs to another model"):
        layers.Sequential(layers.ReLU(), layers.Sequential(shared)).build((3,), device=cpu)
    assert [p.name for p in first.parameters()] == ["0.weight", "0.bias"]
    assert first.predict(np.ones((1, 3))).shape == (1, 4)


def test_a_parameter_name_occurs_once(cpu):
    class Twice(layers.Flatten):
        def setup(self, shape):
            self.parameter("w", (2,), np.zeros)
            self.parameter("w", (3,), np.zeros)
            return shape

    with pytest.raises(ArgumentError, match="Twice '0' declares a parameter 'w' twice"):
        layers.Sequential(Twice()).build((3,), device=cpu)


def test_a_built_model_is_not_copied(cpu):
    model = small(cpu)
    for copying in (copy.deepcopy, pickle.dumps):
        with pytest.raises(ArgumentError, match=r"is built, and its parameters are views .* set_weights"):
            copying(model)
    again = pickle.loads(pickle.dumps(layers.Sequential(layers.Dense(4), layers.ReLU())))
    assert again.build((3,), device=cpu).predict(np.ones((2, 3))).shape == (2, 4)


def test_predict_refuses_what_it_cannot_batch(cpu):
    model = small(cpu)
    with pytest.raises(ShapeError, match=r"but got \(3,\)\. For one sample, add the batch axis: x\[None\]"):
        model.predict(np.ones(3))
    with pytest.raises(ArgumentError, match="batch_size must be at least 1, but got 0"):
        model.predict(np.ones((2, 3)), batch_size=0)
    for wrong, message in (
        ("abc", "takes NumPy arrays"),
        ([["a"]], "takes numbers, but got"),
        ([[1], [1, 2]], "cannot make"),
    ):
        with pytest.raises(ArrayError, match=message):
            model.predict(wrong)


def test_a_part_of_a_model_has_no_store_of_its_own(cpu):
    inner = layers.Sequential(layers.Dense(2))
    layers.Sequential(inner).build((3,), device=cpu)
    with pytest.raises(ArgumentError, match="is part of a model"):
        inner.get_weights()


def test_nothing_before_the_first_trainable_layer_runs_backward(cpu):
    ran = []

    class Spy(layers.Flatten):
        def backward(self, dy, saved, ctx):
            ran.append(ctx.needs_input_grad)
            return super().backward(dy, saved, ctx)

    model = layers.Sequential(Spy(), layers.Dense(2), Spy(), layers.Dense(2)).build((3,), device=cpu)
    for needs, expected in ((False, [True]), (True, [True, True])):
        ran.clear()
        ctx = model.context(training=True, needs_input_grad=needs)
        _, saved = model.forward(cpu.zeros((2, 3), "float32"), ctx)
        dx = model.backward(cpu.zeros((2, 2), "float32"), saved, ctx)
        assert ran == expected
        assert (dx is not None) == needs
    model.freeze("*")
    ctx = model.context(training=True)
    _, saved = model.forward(cpu.zeros((2, 3), "float32"), ctx)
    ran.clear()
    assert model.backward(cpu.zeros((2, 2), "float32"), saved, ctx) is None
    assert ran == []
