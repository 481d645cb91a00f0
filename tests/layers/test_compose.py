"""Shortcuts, branches and shapes: names, refusals, shared layers, training."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet import layers, losses, optim
from gpunet.errors import ArgumentError, ShapeError
from gpunet.layers import Add, Concat, Dense, Identity, LayerNorm, Permute, ReLU, Reshape, Residual, Sequential
from gpunet.train.step import TrainStep


def build(*parts, shape=(4,), backend="cpu"):
    return Sequential(*parts).build(shape, device=backend)


def test_names_are_paths(cpu):
    model = build(Residual(Dense(3), ReLU(), Dense(4, name="out")), Concat(Dense(2), Sequential(Dense(1), Dense(5))))
    assert list(model.get_weights()) == [
        *("0.0.weight", "0.0.bias", "0.out.weight", "0.out.bias"),
        *("1.0.weight", "1.0.bias", "1.1.0.weight", "1.1.0.bias", "1.1.1.weight", "1.1.1.bias"),
    ]
    assert model.built[1] == (7,)


def test_what_runs_inside_is_merged(cpu, capsys):
    model = build(Residual(Dense(4), ReLU()))
    model.summary()
    assert "Residual" in capsys.readouterr().out
    assert len(model.layers[0].body.chain().run) == 2


REFUSED = {
    "residual": (
        lambda: Residual(Dense(3)),
        r"adds its input .* turn \(…, 4\) into \(…, 3\)\. Let the last one have 4 units",
    ),
    "add": (lambda: Add(Dense(3), Dense(2)), r"adds its branches, but they give \(…, 3\) and \(…, 2\)"),
    "concat": (lambda: Concat(Reshape((2, 2)), Dense(4)), r"joins its branches .* \(…, 2, 2\) and \(…, 4\)"),
    "reshape": (lambda: Reshape((3, -1)), r"cannot turn \(…, 4\), 4 elements, into \(…, 3, -1\)"),
    "reshape_twice": (lambda: Reshape((-1, -1)), "at most one axis of it -1"),
    "permute": (lambda: Permute((2, 1)), r"needs each axis of \(…, 4\) once, from 1 to 1, but got \(2, 1\)"),
}


@pytest.mark.parametrize(("make", "text"), REFUSED.values(), ids=REFUSED)
def test_shapes_that_do_not_fit(make, text):
    with pytest.raises(ShapeError, match=text):
        build(make())


def test_one_branch_is_none():
    with pytest.raises(ArgumentError, match="Concat needs two branches or more, but got 1"):
        Concat(Dense(3))


@pytest.mark.parametrize("layer", [layers.LayerNorm, layers.RMSNorm])
def test_eps_is_positive(layer):
    with pytest.raises(ArgumentError, match=r"needs eps > 0, but got 0\.0"):
        layer(eps=0.0)


def test_a_layer_in_two_branches_is_shared(backend):
    """Its gradients add."""
    shared = Dense(3, name="shared")
    model = build(Add(shared, Sequential(shared, ReLU())), Dense(2), backend=backend)
    single = build(Dense(3, name="shared"), Dense(2), backend=backend)
    assert len(model.get_weights()) == len(single.get_weights()) == 4
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    y = np.array([0, 1, 0, 1, 1, 0])
    TrainStep(model, losses.CrossEntropy(), optim.SGD(0.1))(x, y)
    assert all(np.any(g) for g in model.get_gradients().values())


def test_the_first_layer_gives_no_input_gradient(backend):
    """Only what is trained is computed: frozen shortcuts pass the gradient on, or nothing."""
    model = build(Residual(Dense(4)), Concat(Identity(), Dense(2)), Dense(2), backend=backend)
    model.freeze("0.*")
    x = np.ones((6, 4), np.float32)
    before = model.get_weights()
    TrainStep(model, losses.CrossEntropy(), optim.SGD(0.1))(x, np.zeros(6, int))
    after = model.get_weights()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"1.1.weight", "1.1.bias", "2.weight", "2.bias"}


def test_a_deep_network_of_shortcuts_learns(fakegpu, cpu):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((64, 4)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(int)
    for backend in (cpu, fakegpu()):
        blocks = [Residual(LayerNorm(), Dense(16), layers.GELU(), Dense(8)) for _ in range(3)]
        model = build(Dense(8), *blocks, Dense(2), backend=backend)
        step = TrainStep(model, losses.CrossEntropy(), optim.Adam(1e-2))
        values = [float(backend.to_numpy(step(x, y))) for _ in range(40)]
        assert values[-1] < 0.3 * values[0]


def test_repr_shows_what_is_inside():
    assert repr(Residual(Dense(3), ReLU())) == "Residual(\n  Dense(3),\n  ReLU(),\n)"
    assert repr(Concat(Dense(3), Identity())) == "Concat(Dense(3), Identity())"
    assert Residual(Dense(3), name="r").config()["name"] == "r"
