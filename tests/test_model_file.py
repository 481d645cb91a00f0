"""The model file: what comes back, and what is refused."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import pytest
from kit import LAYERS, built, draw, inputs

import gpunet as gn
from gpunet import initializers, layers, losses, optim
from gpunet.errors import ArgumentError, FileError, NotBuiltError, ShapeError
from gpunet.io import files
from gpunet.pointwise import Pointwise


@pytest.mark.parametrize("spec", LAYERS, ids=lambda s: s.name)
def test_every_layer_comes_back_with_its_bits(spec, cpu, tmp_path):
    model = built(spec, cpu, "float32")
    gn.save(model, tmp_path / "m.safetensors")
    loaded = gn.load(tmp_path / "m.safetensors", device=cpu)
    assert repr(loaded) == repr(model)
    assert loaded.built == model.built
    weights = model.get_weights()
    assert loaded.get_weights().keys() == weights.keys()
    assert all(np.array_equal(w, weights[name]) for name, w in loaded.get_weights().items())
    x = inputs(spec)
    assert np.array_equal(loaded.predict(x), model.predict(x))


def small(**options):
    model = layers.Sequential(layers.Dense(4, name="hidden"), layers.BatchNorm(), layers.Tanh(), layers.Dense(2))
    return model.build((3,), device="cpu", **options)


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16", "mixed_float16"])
def test_dtype_frozen_parameters_and_states_come_back(dtype, tmp_path):
    model = small(dtype=dtype)
    gn.TrainStep(model, losses.MeanSquaredError(), optim.SGD(0.1))(draw(0, 8, 3), draw(1, 8, 2))
    model.freeze("hidden.*")
    gn.save(model, tmp_path / "m")
    loaded = gn.load(tmp_path / "m", device="cpu")
    assert (loaded.dtype, loaded.store.dtype) == (model.dtype, model.store.dtype)
    assert [p.trainable for p in loaded.store.parameters] == [False, False, True, True, True, True]
    assert np.array_equal(loaded.get_weights()["1.running_mean"], model.get_weights()["1.running_mean"])
    assert loaded.get_weights()["1.running_mean"].any()
    x = draw(2, 5, 3)
    assert np.array_equal(loaded.predict(x), model.predict(x))


def test_a_model_moves_between_backends(backend, tmp_path):
    model = small()
    gn.save(model, tmp_path / "m")
    loaded = gn.load(tmp_path / "m", device=backend)
    assert loaded.store.backend is backend
    gn.save(loaded, tmp_path / "again")
    (content, arrays), (again, same) = (files.read(tmp_path / name, "model", 1) for name in ("m", "again"))
    assert again == content
    assert all(np.array_equal(array, same[name]) for name, array in arrays.items())


def test_a_layer_that_is_used_twice_stays_one(tmp_path):
    shared = layers.Dense(3)
    model = layers.Sequential(shared, layers.Residual(layers.Tanh(), shared), layers.Concat(shared, layers.ReLU()))
    model.build((3,), device="cpu")
    gn.save(model, tmp_path / "m")
    loaded = gn.load(tmp_path / "m", device="cpu")
    assert loaded.layers[0] is loaded.layers[1].body.layers[1] is loaded.layers[2].branches[0]
    assert np.array_equal(loaded.predict(draw(0, 4, 3)), model.predict(draw(0, 4, 3)))


@dataclass(eq=False, kw_only=True, repr=False)
class Scaled(Pointwise):
    """y = a x"""

    factor: float = field(default=2.0, kw_only=False)
    sizes: tuple = (1, 2)

    def formula(self, xp, x, *operands):
        return self.factor * x

    def derivative(self, xp, dy, x, y, *operands):
        return self.factor * dy


def test_a_layer_of_ones_own_is_named_to_load_it(tmp_path):
    model = layers.Sequential(Scaled(3.0, sizes=(4, (5,))), layers.Dense(2)).build((3,), device="cpu")
    gn.save(model, tmp_path / "m")
    with pytest.raises(
        FileError, match=r"there is no layer 'Scaled'\. Pass its class: gpunet\.load\(path, layers=\[Sc"
    ):
        gn.load(tmp_path / "m")
    loaded = gn.load(tmp_path / "m", device="cpu", layers=[Scaled])
    assert (loaded.layers[0].factor, loaded.layers[0].sizes) == (3.0, (4, (5,)))
    assert np.array_equal(loaded.predict(draw(0, 4, 3)), model.predict(draw(0, 4, 3)))
    with pytest.raises(ArgumentError, match=r"layers takes classes of layers, but got .* Write layers=\[MyLayer\]"):
        gn.load(tmp_path / "m", layers=[Scaled()])


def test_initializers_come_back_and_functions_are_not_needed(tmp_path):
    chosen = initializers.GlorotUniform(gain=2.0)
    model = layers.Sequential(
        layers.Dense(2, weight_init=chosen), layers.Dense(2, weight_init=lambda seed, path, shape: np.ones(shape))
    )
    model.build((3,), device="cpu")
    gn.save(model, tmp_path / "m")
    loaded = gn.load(tmp_path / "m", device="cpu")
    assert loaded.layers[0].weight_init == chosen
    assert np.array_equal(loaded.get_weights()["1.weight"], np.ones((2, 2)))
    with pytest.raises(ArgumentError, match=r"initial values of '1.weight' came from <lambda>, which is not in the mo"):
        loaded.store.initialize(0)


class Plain(Pointwise):
    """A constructor of its own, whose arguments config() does not know."""

    def __init__(self, k=1.0, name=None):
        super().__init__(name=name)
        self.k = k

    def formula(self, xp, x, *operands):
        return self.k * x


def test_a_layer_that_could_not_be_made_anew_is_not_saved(tmp_path):
    model = layers.Sequential(Plain(3.0)).build((3,), device="cpu")
    with pytest.raises(
        ArgumentError, match=r"Plain '0' cannot be made anew: its config has name, .* takes k, name\. Make"
    ):
        gn.save(model, tmp_path / "m")


def test_a_function_that_is_no_initializer_is_not_saved(tmp_path):
    @dataclass(eq=False, kw_only=True, repr=False)
    class Applied(layers.Tanh):
        function: object = abs

    with pytest.raises(ArgumentError, match=r"has function=<built-in function abs>, a builtin_.*cannot hold"):
        gn.save(layers.Sequential(Applied()).build((2,), device="cpu"), tmp_path / "m")


def test_files_can_be_read_by_whom_the_umask_lets(tmp_path):
    before = os.umask(0o027)
    try:
        gn.save(small(), tmp_path / "m")
    finally:
        os.umask(before)
    assert (tmp_path / "m").stat().st_mode & 0o777 == 0o640


def test_what_cannot_be_saved_is_refused_and_nothing_is_written(tmp_path):
    path = tmp_path / "m"
    with pytest.raises(NotBuiltError, match="has no parameters yet"):
        gn.save(layers.Sequential(layers.Dense(2)), path)
    with pytest.raises(ArgumentError, match=r"save takes a Sequential, but got a Dense\. Wrap it"):
        gn.save(layers.Dense(2), path)
    model = layers.Sequential(Scaled(np.ones(3))).build((3,), device="cpu")
    with pytest.raises(
        ArgumentError, match=r"Scaled '0' has factor=array.*, a ndarray, which a model file cannot hold"
    ):
        gn.save(model, path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(FileError, match=r"cannot be written: .*Choose a file in a folder that exists"):
        gn.save(small(), tmp_path / "missing" / "m")
    with pytest.raises(FileError, match="cannot be written"):
        gn.save(small(), tmp_path)


def test_an_old_file_survives_a_failing_save(tmp_path, monkeypatch):
    path = tmp_path / "m"
    gn.save(small(), path)
    before = path.read_bytes()

    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="No space left on device"):
        gn.save(small(seed=1), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_initial_values_of_a_build():
    first, second = small(), layers.Sequential(layers.Dense(2))
    weights = first.get_weights()
    again = layers.Sequential(*[layers.Dense(4, name="hidden"), layers.BatchNorm(), layers.Tanh(), layers.Dense(2)])
    again.build((3,), device="cpu", initial=weights)
    assert all(np.array_equal(w, weights[name]) for name, w in again.get_weights().items())
    with pytest.raises(ArgumentError, match=r"there is no parameter 'hidden.weight'"):
        second.build((3,), device="cpu", initial=weights)
    with pytest.raises(
        ArgumentError, match=r"there are no values for '0.bias', but all parameters and states need some"
    ):
        second.build((3,), device="cpu", initial={"0.weight": np.ones((3, 2))})
    with pytest.raises(ShapeError, match=r"'0.weight' has shape \(3, 2\) but got \(2, 2\)"):
        second.build((3,), device="cpu", initial={"0.weight": np.ones((2, 2)), "0.bias": np.ones(2)})
    assert second.built is None
