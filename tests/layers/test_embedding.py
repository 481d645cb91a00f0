"""Embedding: padding, indices of any type, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from kit import draw, error

import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.errors import ArgumentError, ArrayError


def built(backend, dtype="float64", **options):
    return layers.Sequential(layers.Embedding(5, 3, **options)).build((4,), device=backend, dtype=dtype)


def gradient(model, x, dy):
    backend = model.backend
    ctx = model.context(training=True)
    _, saved = model.forward(backend.asarray(x), ctx)
    assert model.backward(backend.asarray(dy, model.dtype), saved, ctx) is None
    return model.get_gradients()["0.weight"]


X = np.array([[0, 1, 1, 4], [2, 2, 2, 0]])


def test_the_padding_row_starts_as_zero_and_gets_no_gradient(backend):
    model, dy = built(backend, padding_index=2), draw(0, 2, 4, 3)
    table = model.get_weights()["0.weight"]
    assert not table[2].any()
    assert table[[0, 1, 3, 4]].all()
    assert not model.predict(X)[1, :3].any()
    expected = np.einsum("nti,ntk->ik", np.eye(5)[X], dy)
    assert error(gradient(built(backend), X, dy), expected) < 1e-14
    expected[2] = 0
    assert error(gradient(model, X, dy), expected) < 1e-14
    step = gn.TrainStep(model, losses.MeanSquaredError(), optim.SGD(0.1))
    step(X, dy)
    assert not model.get_weights()["0.weight"][2].any()


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "uint32", "int64", "uint64"])
def test_integers_of_every_type(dtype, backend):
    if dtype in ("uint32", "uint64") and backend.name == "torch":
        pytest.skip("PyTorch clips neither")
    model = built(backend)
    x = backend.asarray(X.astype(dtype))
    y, _ = model.forward(x, model.context(training=False))
    assert np.array_equal(backend.to_numpy(y), model.get_weights()["0.weight"][X])


def test_an_index_out_of_range_gives_nan_and_no_gradient(backend):
    model = built(backend)
    x = np.array([[0, -1, 5, 2**32]])
    y, _ = model.forward(backend.asarray(x), model.context(training=False))
    assert np.isnan(backend.to_numpy(y)).all(-1).tolist() == [[False, True, True, True]]
    found = gradient(model, x, np.ones((1, 4, 3)))
    assert found.tolist() == [[1.0] * 3, *[[0.0] * 3] * 4]


def test_a_frozen_table_stays(backend):
    model = layers.Sequential(layers.Embedding(5, 3), layers.Flatten(), layers.Dense(2)).build((4,), device=backend)
    model.freeze("0.*")
    before = model.get_weights()
    gn.TrainStep(model, losses.CrossEntropy(), optim.SGD(0.1))(X, np.array([0, 1]))
    after = model.get_weights()
    assert np.array_equal(before["0.weight"], after["0.weight"])
    assert not np.array_equal(before["2.weight"], after["2.weight"])


def test_mixed_precision_adds_up_in_float32(cpu):
    """Of 300 ones bfloat16 would keep 256."""
    model = built(cpu, "mixed_bfloat16")
    y, _ = model.forward(X, model.context(training=False))
    assert y.dtype == "bfloat16"
    found = gradient(model, np.zeros((75, 4), np.int32), np.ones((75, 4, 3)))
    assert found.dtype == np.float32
    assert found[0].tolist() == [300.0] * 3


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_a_model_in_mixed_precision(dtype, cpu):
    model = layers.Sequential(layers.Embedding(5, 3, padding_index=2), layers.Flatten(), layers.Dense(2))
    model.build((4,), device=cpu, dtype=dtype)
    step = gn.TrainStep(model, losses.CrossEntropy(class_weights=[1.0, 2.0]), optim.Adam(0.05))
    values = [float(step(X, np.array([0, 1]), [1.0, 0.5])) for _ in range(20)]
    assert values[-1] < values[0] / 2
    assert model.predict(X).dtype == np.float32


def test_integers_of_the_other_byte_order(cpu):
    model = built(cpu)
    assert np.array_equal(model.predict(X.astype(">i4")), model.predict(X))
    loss = losses.CrossEntropy()
    assert loss(np.zeros((2, 3)), np.array([0, 1], ">i4"))[0] == loss(np.zeros((2, 3)), np.array([0, 1]))[0]


def test_gradcheck_leaves_the_padding_out():
    assert gn.gradcheck(layers.Embedding(5, 3, padding_index=2), (4, 6))["0.weight"] < 1e-6


def test_numbers_are_no_indices(cpu):
    model = built(cpu)
    with pytest.raises(ArrayError, match=r"Embedding '0' needs integer indices but got float64\. Use x.astype"):
        model.forward(np.zeros((2, 4)), model.context(training=False))
    with pytest.raises(
        ArgumentError, match=r"integers in \[0, 5\), but got float64 from 0.0 to 0.0\. Use x.astype\('int32'"
    ):
        model.predict(np.zeros((2, 4)))
    model = layers.Sequential(layers.Dense(4), layers.Embedding(5, 3))
    with pytest.raises(
        ArgumentError, match=r"Embedding takes integers: nothing may come before it\. Make it the first"
    ):
        model.build((4,), device="cpu")
    assert model.built is None


def test_bad_arguments_are_refused():
    for options in ((0, 3), (5, 0), (2.5, 3)):
        with pytest.raises(ArgumentError, match=r"Embedding needs a whole number of (entries|units), at least 1, but"):
            layers.Embedding(*options)
    for index in (5, -1, 1.0):
        with pytest.raises(ArgumentError, match=rf"padding_index in \[0, 5\), but got {index}\. Keep an entry for it"):
            layers.Embedding(5, 3, padding_index=index)
    assert repr(layers.Embedding(5, 3, padding_index=0)) == "Embedding(5, 3, padding_index=0)"
