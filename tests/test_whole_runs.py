"""The same training run on every backend: digits, 5 epochs, dropout on."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from kit import error

import gpunet as gn
from gpunet import layers, losses, optim


def run_on(backend, dtype):
    (x, y), (x_test, y_test) = gn.datasets.digits()
    model = layers.Sequential(layers.Dense(32), layers.ReLU(), layers.Dropout(0.2), layers.Dense(10))
    model.build((64,), device=backend, dtype=dtype, seed=0)
    masks = []
    ctx = model.context(training=True, observe=lambda layer, out: masks.append(backend.to_numpy(out) == 0))
    out, saved = model.forward(backend.asarray(x[:64], dtype), ctx)
    model.backward(losses.CrossEntropy()(out, backend.asarray(y[:64]))[1], saved, ctx)
    gradients = model.get_gradients()
    trainer = gn.Trainer(model, losses.CrossEntropy(), optim.Adam(5e-3), metrics=["accuracy"], seed=0)
    trainer.fit(x, y, epochs=5, batch_size=64, verbose=0)
    return masks[2], gradients, model.get_weights(), trainer.evaluate(x_test, y_test)["accuracy"]


@cache
def reference_run(dtype):
    from conftest import require

    return run_on(require("reference"), dtype)


def test_float64_weights_agree_to_1e_9(backend):
    mask, gradients, weights, accuracy = run_on(backend, "float64")
    expected = reference_run("float64")
    assert np.array_equal(mask, expected[0])
    for name, value in weights.items():
        assert error(gradients[name], expected[1][name]) <= 1e-12, name
        assert error(value, expected[2][name]) <= 1e-9, name
    assert accuracy == expected[3]


def test_float32_masks_first_gradients_and_accuracy_agree(backend):
    mask, gradients, _, accuracy = run_on(backend, "float32")
    expected = reference_run("float32")
    assert np.array_equal(mask, expected[0])
    assert mask.mean() > 0.15
    for name, value in gradients.items():
        assert error(value, expected[1][name]) <= 2e-6, name
    assert abs(accuracy - expected[3]) <= 0.01
    assert accuracy > 0.9


@pytest.mark.parametrize("seed", [0, 1])
def test_the_split_of_digits_is_fixed_and_stratified(seed):
    (x, y), (x_test, y_test) = gn.datasets.digits()
    assert (len(x), len(x_test)) == (1442, 355)
    assert x.dtype == np.float32
    assert (x.min(), x.max()) == (0, 1)
    assert y.dtype == np.int32
    share = np.bincount(y_test) / np.bincount(np.concatenate([y, y_test]))
    assert abs(share - 0.2).max() < 0.01
    joined = {r.tobytes() for r in x} & {r.tobytes() for r in x_test}
    assert not joined
