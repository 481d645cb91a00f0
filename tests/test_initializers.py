"""Initial values: their moments and bounds, and what they depend on."""

import math

import numpy as np
import pytest

from gpunet import initializers as init
from gpunet import layers
from gpunet.errors import ShapeError

SHAPE = (300, 200)
STD = {
    init.HeNormal(): math.sqrt(2 / 300),
    init.HeUniform(): math.sqrt(2 / 300),
    init.GlorotNormal(): math.sqrt(2 / 500),
    init.GlorotUniform(): math.sqrt(2 / 500),
    init.LeCunNormal(): math.sqrt(1 / 300),
    init.LeCunUniform(): math.sqrt(1 / 300),
    init.Normal(0.3): 0.3,
    init.Uniform(0.3): 0.3 / math.sqrt(3),
    init.TruncatedNormal(0.3): 0.3 * 0.8796256610342398,
    init.Orthogonal(): math.sqrt(1 / 300),
    init.GlorotUniform(gain=layers.Tanh.gain): 5 / 3 * math.sqrt(2 / 500),
}


@pytest.mark.parametrize("initializer", STD, ids=repr)
def test_mean_and_standard_deviation(initializer):
    w = initializer(0, "w", SHAPE)
    assert w.shape == SHAPE
    assert w.dtype == np.float64
    assert abs(w.mean()) < 4 * STD[initializer] / math.sqrt(w.size)
    assert w.std() == pytest.approx(STD[initializer], rel=0.01)


@pytest.mark.parametrize("initializer", STD, ids=repr)
def test_values_depend_on_seed_and_path(initializer):
    w = initializer(0, "w", SHAPE)
    assert np.array_equal(w, initializer(0, "w", SHAPE))
    for other in (initializer(1, "w", SHAPE), initializer(0, "v", SHAPE)):
        assert abs(np.corrcoef(w.ravel(), other.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(("initializer", "limit"), [(init.Uniform(0.3), 0.3), (init.TruncatedNormal(0.3), 0.6)])
def test_bounds(initializer, limit):
    w = initializer(0, "w", SHAPE)
    assert 0.99 * limit < abs(w).max() <= limit


def test_uniform_is_uniform():
    counts, _ = np.histogram(init.Uniform(1.0)(0, "w", SHAPE), bins=10, range=(-1, 1))
    assert counts.min() > 5600  # of 6000 each, standard deviation 73


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
def test_orthogonal(shape):
    w = init.Orthogonal(gain=2.0)(0, "w", shape) / 2
    smaller = w.T @ w if shape[0] >= shape[1] else w @ w.T
    np.testing.assert_allclose(smaller, np.eye(min(shape)), atol=1e-14)


def test_orthogonal_matrices_have_no_preferred_sign():
    signs = [np.sign(init.Orthogonal()(seed, "w", (3, 3))[0, 0]) for seed in range(200)]
    assert abs(np.mean(signs)) < 0.25


def test_constants():
    assert np.all(init.Constant(0.25)(0, "w", (2, 3)) == 0.25)
    assert np.all(init.Ones()(0, "w", (2, 3)) == 1)
    assert not np.any(init.Zeros()(0, "w", (2, 3)))
    assert init.IdentityMatrix(3.0)(0, "w", (2, 3)).tolist() == [[3, 0, 0], [0, 3, 0]]


@pytest.mark.parametrize("initializer", [init.Orthogonal(), init.IdentityMatrix()])
def test_matrices_only(initializer):
    with pytest.raises(ShapeError, match=r"is for matrices, but the parameter has shape \(3,\)"):
        initializer(0, "b", (3,))


def test_an_initializer_of_a_layer(cpu):
    model = layers.Sequential(layers.Dense(4, weight_init=init.IdentityMatrix(), bias_init=init.Constant(0.5)))
    model.build((4,), device=cpu)
    assert np.allclose(model.predict(np.eye(4)), np.eye(4) + 0.5)
    assert "IdentityMatrix" in repr(model)
