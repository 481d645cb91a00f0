"""The flat store: layout, gradients, freezing."""

from __future__ import annotations

import numpy as np
import pytest
from kit import draw

from gpunet import initializers, layers
from gpunet.backend import host
from gpunet.errors import ArgumentError, ShapeError


def built(backend, *parts):
    return layers.Sequential(*parts).build((3,), device=backend, seed=4)


def test_parameters_are_aligned_views_of_one_buffer(cpu):
    model = built(cpu, layers.Dense(5), layers.Dense(2))
    store = model.store
    for p in store.parameters:
        assert np.shares_memory(p.value, store.values)
        assert np.shares_memory(p.grad, store.grads)
        assert p.value.ctypes.data % 256 == 0
        assert store.offsets[p.name] * 4 % 256 == 0
    assert [p.name for p in store.parameters] == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert store.values.size == 4 * 64


def test_set_weights_writes_in_place(backend):
    model = built(backend, layers.Dense(5))
    value = model.store.parameters[0].value
    model.set_weights({"0.weight": draw(0, 3, 5)})
    assert model.store.parameters[0].value is value
    assert np.allclose(model.get_weights()["0.weight"], draw(0, 3, 5))
    assert not model.get_weights()["0.bias"].any()


def test_get_weights_gives_copies(backend):
    model = built(backend, layers.Dense(5))
    model.get_weights()["0.weight"][...] = 0
    assert model.get_weights()["0.weight"].any()


def test_set_weights_refuses_before_it_writes(cpu):
    model = built(cpu, layers.Dense(5))
    before = model.get_weights()
    with pytest.raises(ArgumentError, match=r"no parameter '1\.weight'\. The parameters are: 0\.weight, 0\.bias"):
        model.set_weights({"0.bias": np.ones(5), "1.weight": np.ones(5)})
    with pytest.raises(ShapeError, match=r"'0\.weight' has shape \(3, 5\) but got \(5, 3\)\. Transpose or reshape"):
        model.set_weights({"0.bias": np.ones(5), "0.weight": np.ones((5, 3))})
    assert all(np.array_equal(v, before[n]) for n, v in model.get_weights().items())


def test_the_first_gradient_overwrites_and_later_ones_add(backend):
    model = built(backend, layers.Dense(5))
    weight, bias = model.store.parameters
    ones = backend.asarray(np.ones((3, 5)), "float32")
    for expected in ([1, 2, 3], [1, 2]):
        model.store.begin()
        for total in expected:
            weight.add_grad(ones)
            assert (backend.to_numpy(weight.grad) == total).all()
    bias.add_grad(backend.asarray(np.ones(5), "float32"))
    model.store.begin()
    gradients = model.get_gradients()  # nobody wrote in this step
    assert not gradients["0.weight"].any()
    assert not gradients["0.bias"].any()


def test_freezing_moves_parameters_to_the_end(backend):
    model = built(backend, layers.Dense(5), layers.Dense(2))
    before, version = model.get_weights(), model.version
    model.freeze("0.*")
    assert model.version > version
    assert model.store.offsets["1.weight"] == 0
    assert model.store.trainable_end == 2 * 64
    assert all(np.array_equal(v, before[n]) for n, v in model.get_weights().items())
    with pytest.raises(ArgumentError, match=r"no parameter matches '9\.\*'\. The parameters are: 0\.weight"):
        model.freeze("9.*")


def test_a_layer_serves_one_model(cpu):
    shared = layers.Dense(3)
    built(cpu, shared)
    with pytest.raises(ArgumentError, match="Dense '0' belongs to another model"):
        built(cpu, shared)


def test_a_layer_used_twice_is_laid_out_once(cpu):
    dense = layers.Dense(3)
    model = built(cpu, dense, layers.ReLU(), dense)
    assert [p.name for p in model.store.parameters] == ["0.weight", "0.bias"]
    wide = layers.Dense(2)
    with pytest.raises(ShapeError, match=r"was built for inputs of shape \(…, 3\) .* is used again for \(…, 2\)"):
        built(cpu, wide, wide)


def test_initial_weights_are_keyed_by_path(cpu):
    def weights(*parts, seed=0):
        return layers.Sequential(*parts).build((3,), device=cpu, seed=seed).get_weights()

    one = weights(layers.Dense(4, name="a"))
    two = weights(layers.Dense(3, name="first"), layers.Dense(4, name="a"), layers.Dense(2))
    assert np.array_equal(one["a.weight"], two["a.weight"])
    assert not np.array_equal(one["a.weight"], weights(layers.Dense(4, name="a"), seed=1)["a.weight"])
    assert not np.array_equal(one["a.weight"], weights(layers.Dense(4, name="b"))["b.weight"])


def test_initial_weights_are_the_same_on_every_backend(backend, cpu):
    here, there = built(backend, layers.Dense(5)).get_weights(), built(cpu, layers.Dense(5)).get_weights()
    assert all(np.array_equal(here[n], there[n]) for n in here)


def test_initializers_have_their_moments():
    he = initializers.HeNormal()(0, "w", (200, 300))
    assert he.shape == (200, 300)
    assert abs(he.std() - np.sqrt(2 / 200)) < 1e-3
    glorot = initializers.GlorotUniform()(0, "w", (200, 300))
    limit = np.sqrt(6 / 500)
    assert abs(glorot).max() <= limit
    assert abs(glorot.std() - limit / np.sqrt(3)) < 1e-3
    assert abs(glorot.mean()) < 1e-3
    assert not initializers.Zeros()(0, "b", (3,)).any()


def test_host_numbers_are_keyed_and_files_come_back(tmp_path):
    h = host()
    assert np.array_equal(h.normal(1, "a", (3,)), h.normal(1, "a", (3,)))
    assert not np.array_equal(h.normal(1, "a", (3,)), h.normal(1, "b", (3,)))
    assert sorted(h.permutation(0, "p", 10).tolist()) == list(range(10))
    h.save(tmp_path / "x.npz", {"a": np.arange(3)})
    assert h.load(tmp_path / "x.npz")["a"].tolist() == [0, 1, 2]
    np.save(tmp_path / "x.npy", np.arange(2))
    assert h.load(tmp_path / "x.npy")[""].tolist() == [0, 1]
