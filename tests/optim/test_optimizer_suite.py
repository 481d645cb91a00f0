"""From one spec per optimizer: every backend against an independent update in float64."""

from __future__ import annotations

import numpy as np
import pytest
from kit import OPTIMIZERS, TOLERANCE, draw, error

from gpunet import layers, optim
from gpunet.errors import ArgumentError
from gpunet.optim.radam import sample_length
from gpunet.testing import optimizers
from gpunet.testing.suites import suite

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def model_on(backend, dtype):
    model = layers.Sequential(layers.Dense(3), layers.Tanh(), layers.Dense(2))
    return model.build((4,), device=backend, dtype=dtype, seed=1)


def give_gradients(model, seed):
    model.store.begin()
    gradients = {}
    for i, p in enumerate(model.store.parameters):
        gradients[p.name] = draw(seed + i, *p.shape).astype(model.dtype)
        p.add_grad(model.backend.asarray(gradients[p.name]))
    return gradients


TestOptimizers = suite(optimizers.CHECKS, OPTIMIZERS)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: optim.SGD(-1.0), r"SGD needs learning_rate >= 0.*, but got -1.0"),
        (lambda: optim.Adam(float("nan")), r"Adam needs learning_rate >= 0.*, but got nan"),
        (lambda: optim.SGD(momentum=1.0), r"SGD needs momentum in \[0, 1\), but got 1.0"),
        (lambda: optim.Adam(beta2=1.0), r"Adam needs beta2 in \[0, 1\), but got 1.0"),
        (lambda: optim.SGD(momentum=None), r"SGD needs momentum in \[0, 1\), but got None. The default is 0.0"),
        (lambda: optim.SGD(weight_decay=-0.1), r"SGD needs weight_decay >= 0, but got -0.1"),
        (lambda: optim.SGD(dampening=0.5), r"SGD needs momentum for dampening .* Try momentum=0.9"),
        (lambda: optim.SGD(nesterov=True), r"SGD needs momentum for dampening or nesterov, but got momentum=0.0"),
        (lambda: optim.SGD(momentum=0.9, dampening=0.5, nesterov=True), r"dampening = 0 for nesterov, but got 0.5"),
        (lambda: optim.Adam(eps=0.0), r"Adam needs eps > 0, but got 0.0. The default is 1e-08"),
        (lambda: optim.AdamW(weight_decay=float("inf")), r"AdamW needs weight_decay >= 0, but got inf"),
        (lambda: optim.RMSprop(alpha=1.0), r"RMSprop needs alpha in \[0, 1\), but got 1.0. The default is 0.99"),
        (lambda: optim.RMSprop(momentum=-0.5), r"RMSprop needs momentum in \[0, 1\), but got -0.5"),
        (lambda: optim.Adagrad(lr_decay=-1.0), r"Adagrad needs lr_decay >= 0, but got -1.0"),
        (lambda: optim.Adagrad(initial_accumulator_value=-1.0), r"needs initial_accumulator_value >= 0, but got -1.0"),
        (lambda: optim.Lion(beta2=1.5), r"Lion needs beta2 in \[0, 1\), but got 1.5"),
        (lambda: optim.Adadelta(rho=1.0), r"Adadelta needs rho in \[0, 1\), but got 1.0"),
        (lambda: optim.RAdam(eps=0.0), r"RAdam needs eps > 0, but got 0.0"),
    ],
)
def test_bad_settings_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


@dtypes
def test_clip_scales_to_the_norm(dtype, backend):
    model = model_on(backend, dtype)
    gradients = give_gradients(model, 3)
    norm = np.sqrt(sum(np.sum(np.square(g.astype(np.float64))) for g in gradients.values()))
    assert error(backend.to_numpy(optim.clip(model, norm=float(norm) / 2)), norm) <= TOLERANCE[dtype]
    for name, value in model.get_gradients().items():
        assert error(value, gradients[name] / 2) <= 2e-6  # PyTorch's 1e-6 in the denominator
    clipped = model.get_gradients()
    optim.clip(model, norm=1e6)
    for name, value in model.get_gradients().items():
        assert np.array_equal(value, clipped[name]), "a small norm was scaled"


def test_clip_counts_gradients_that_nobody_wrote_as_zero(backend):
    model = model_on(backend, "float64")
    give_gradients(model, 3)
    model.store.begin()
    model.store.parameters[1].add_grad(backend.asarray(np.ones(3), "float64"))
    assert error(backend.to_numpy(optim.clip(model, norm=1e6)), np.sqrt(3.0)) <= 1e-12


def test_adams_first_step_is_exact_in_float32(backend):
    """A first step is lr g / (|g| + eps): the corrections cancel to all digits."""
    model = model_on(backend, "float32")
    before = model.get_weights()
    gradients = give_gradients(model, 3)
    optim.Adam(1.0).update(model)
    for name, after in model.get_weights().items():
        assert error(before[name] - after, np.sign(gradients[name])) <= 1e-6, name


def test_clip_refuses_a_norm_that_is_not_positive(cpu):
    with pytest.raises(ArgumentError, match="must be positive, but got 0"):
        optim.clip(model_on(cpu, "float32"), norm=0)


@dtypes
def test_clip_bounds_each_value(dtype, backend):
    model = model_on(backend, dtype)
    gradients = give_gradients(model, 3)
    assert optim.clip(model, value=0.5) is None
    for name, value in model.get_gradients().items():
        assert value.dtype == dtype
        assert np.array_equal(value, np.clip(gradients[name], -0.5, 0.5)), name


def test_clip_by_value_keeps_nan_and_bounds_infinity(backend):
    model = model_on(backend, "float32")
    model.store.begin()
    g = np.array([np.nan, np.inf, -np.inf], np.float32)
    model.store.parameters[1].add_grad(backend.asarray(g))
    optim.clip(model, value=2.0)
    gradients = model.get_gradients()
    assert np.array_equal(gradients.pop(model.store.parameters[1].name), [np.nan, 2.0, -2.0], equal_nan=True)
    assert not any(g.any() for g in gradients.values()), "a gradient that nobody wrote is not zero"


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_clip_refuses_a_value_that_is_not_positive(value, cpu):
    with pytest.raises(ArgumentError, match=f"value must be positive, but got {value}. Try value=1.0"):
        optim.clip(model_on(cpu, "float32"), value=value)


@pytest.mark.parametrize("bounds", [{}, {"norm": 1.0, "value": 1.0}])
def test_clip_takes_exactly_one_bound(bounds, cpu):
    with pytest.raises(ArgumentError, match=r"clip needs either norm or value, but got .* Give one of them"):
        optim.clip(model_on(cpu, "float32"), **bounds)


def test_centered_rmsprop_survives_a_variance_rounded_below_zero(backend):
    """Where all gradients are equal the variance vanishes, and rounding decides its sign."""
    model = model_on(backend, "float32")
    optimizer = optim.RMSprop(1e-6, alpha=0.5, centered=True)
    for _ in range(60):
        model.store.begin()
        for i, p in enumerate(model.store.parameters):
            g = np.random.default_rng(i).standard_normal(p.shape).astype(np.float32)
            p.add_grad(backend.asarray(g))
        optimizer.update(model)
    assert all(np.isfinite(w).all() for w in model.get_weights().values())


def test_radams_length_is_exact_in_float32():
    """The plain form loses 1e-4 beside ρ = 6."""
    for beta2 in (0.999, 0.99, 0.8):
        t = np.arange(1, 3000, dtype=np.float64)
        plain = 2 / (1 - beta2) - 1 - 2 * t * beta2**t / (1 - beta2**t)
        with np.errstate(over="ignore"):
            ours = sample_length(np, beta2, t.astype(np.float32))
        assert ours.dtype == np.float32
        assert np.max(np.abs(ours - plain) / plain) <= 1e-6


def test_an_optimizer_without_a_formula_says_so(cpu):
    with pytest.raises(NotImplementedError, match="Optimizer does not define formula"):
        optim.Optimizer(learning_rate=0.1).update(model_on(cpu, "float32"))
