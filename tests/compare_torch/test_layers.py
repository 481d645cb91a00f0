"""Every layer: output, input gradient and parameter gradients."""

import numpy as np
import pytest

from gpunet.layers import Dense, Dropout, Flatten, ReLU, Sequential, Sigmoid, Tanh

from .peer import DTYPES, TOLERANCE, Twin, assert_close, away_from_zero, randomize, tensor

CASES = {
    "Dense": (lambda: [Dense(5)], (7, 4)),
    "Dense of one row and one unit": (lambda: [Dense(1)], (1, 3)),
    "Dense of (N, T, I)": (lambda: [Dense(5)], (3, 6, 4)),
    "Dense without bias": (lambda: [Dense(5, use_bias=False)], (7, 4)),
    "Dense without bias of (N, T, I)": (lambda: [Dense(5, use_bias=False)], (3, 6, 4)),
    "ReLU": (lambda: [ReLU()], (9, 8)),
    "Sigmoid": (lambda: [Sigmoid()], (9, 8)),
    "Tanh": (lambda: [Tanh()], (9, 8)),
    "Flatten": (lambda: [Flatten()], (4, 3, 2, 5)),
    "Dropout": (lambda: [Dropout(0.4)], (9, 8)),
    "Dropout of (N, T, k)": (lambda: [Dropout(0.7)], (5, 4, 8)),
    "Dropout of more than one block": (lambda: [Dropout(0.5)], (300, 256)),
    "Dropout of rate 0": (lambda: [Dropout(0)], (9, 8)),
    "two draws, merged": (lambda: [Dropout(0.3), Tanh(), Dropout(0.3)], (9, 8)),
    "activations, merged": (lambda: [Sigmoid(), Tanh(), ReLU(), Sigmoid()], (9, 8)),
    "a network": (
        lambda: [Flatten(), Dense(16), Tanh(), Dropout(0.2), Dense(8, use_bias=False), Sigmoid(), Dense(3)],
        (9, 4, 2),
    ),
}


def compare(layers, shape, dtype, *, observe=None):
    """Outputs and all gradients of one training forward and backward."""
    rng = np.random.default_rng(3)
    model = Sequential(*layers).build(shape[1:], device="cpu", dtype=dtype)
    randomize(model, rng)
    x = away_from_zero(2 * rng.normal(size=shape)).astype(dtype)

    ctx = model.context(training=True, step=11, seed=5, needs_input_grad=True, observe=observe)
    y, saved = model.forward(x, ctx)
    dy = rng.normal(size=y.shape).astype(dtype)
    dx = model.backward(dy, saved, ctx)

    twin, their_x = Twin(model), tensor(x, grad=True)
    their_y = twin(their_x, step=11, seed=5)
    their_y.backward(tensor(dy))
    assert y.dtype == dx.dtype == dtype
    assert_close(y, their_y, TOLERANCE[dtype], "output")
    assert_close(dx, their_x.grad, TOLERANCE[dtype], "input gradient")
    assert_close(model.get_gradients(), twin.gradients(), TOLERANCE[dtype], "gradient of")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layers", "shape"), CASES.values(), ids=CASES.keys())
def test_layer(layers, shape, dtype):
    compare(layers(), shape, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("layers", "shape"), CASES.values(), ids=CASES.keys())
def test_layer_while_observed(layers, shape, dtype):
    """Observed, the layers run one by one instead of merged."""
    compare(layers(), shape, dtype, observe=lambda layer, y: None)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_layer_used_twice_adds_its_gradients(dtype):
    shared = Dense(6)
    compare([shared, Tanh(), shared, Sigmoid()], (5, 6), dtype)


def test_dropout_mask_is_that_of_the_documented_key():
    """The mask the twin computes is the one that a model applies, whose output is observed."""
    model = Sequential(Dropout(0.4), Dense(8), Dropout(0.4)).build((8,), device="cpu", dtype="float64")
    seen = []
    ctx = model.context(training=True, step=2, seed=9, observe=lambda layer, y: seen.append((layer, np.array(y))))
    model.forward(np.ones((6, 8)), ctx)
    twin = Twin(model)
    twin(tensor(np.ones((6, 8))), step=2, seed=9)
    first, _, last = twin.body
    assert [layer for layer, _ in seen] == model.layers
    np.testing.assert_array_equal(seen[0][1] != 0, first(tensor(np.ones((6, 8)))).numpy() != 0)
    np.testing.assert_array_equal(seen[2][1] != 0, last(tensor(np.ones((6, 8)))).numpy() != 0)


@pytest.mark.parametrize("layer", [ReLU, Sigmoid, Tanh])
@pytest.mark.parametrize("dtype", DTYPES)
def test_activation_of_large_and_special_values(layer, dtype):
    """Infinities saturate, NaN stays, and the slope at the kink of ReLU is 0, as in torch."""
    x = np.array([[0.0, -0.0, 1e-30, -1e-30, 90.0, -90.0, np.inf, -np.inf, np.nan]], dtype)
    model = Sequential(layer()).build((9,), device="cpu", dtype=dtype)
    ctx = model.context(training=True, needs_input_grad=True)
    y, saved = model.forward(x, ctx)
    dx = model.backward(np.ones_like(x), saved, ctx)
    their_x = tensor(x, grad=True)
    their_y = Twin(model)(their_x)
    their_y.sum().backward()
    np.testing.assert_allclose(y, their_y.detach(), rtol=TOLERANCE[dtype], atol=1e-38)
    np.testing.assert_allclose(dx, their_x.grad, rtol=TOLERANCE[dtype], atol=1e-38)
