"""Models that compute in float16 or bfloat16 and are trained in float32."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from kit import error

import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.errors import ArgumentError, ArrayError
from gpunet.train import loss_scale
from gpunet.train.step import TrainStep

MIXED = ("mixed_bfloat16", "mixed_float16")
ROUNDING = {"mixed_bfloat16": 2.0**-8, "mixed_float16": 2.0**-11}
RNG = np.random.default_rng(0)
X = RNG.standard_normal((48, 12)).astype(np.float32)
Y = np.argmax(X[:, :4], axis=-1)


def network(backend, dtype):
    parts = [layers.Dense(16), layers.ReLU(), layers.Dropout(0.1), layers.Dense(8), layers.Tanh(), layers.Dense(4)]
    return layers.Sequential(*parts).build((12,), device=backend, dtype=dtype)


def make(backend, dtype, **options):
    return TrainStep(network(backend, dtype), losses.CrossEntropy(), optim.Adam(1e-2), seed=3, **options)


@pytest.fixture(params=MIXED)
def dtype(request, backend):
    """Each type, on backends that have it."""
    try:
        backend.zeros((1,), request.param.removeprefix("mixed_"))
    except ArrayError as reason:
        pytest.skip(str(reason))
    return request.param


def test_what_is_narrow_and_what_is_not(backend, dtype):
    model, narrow = network(backend, dtype), dtype.removeprefix("mixed_")
    seen = []
    ctx = model.context(training=True, observe=lambda layer, y: seen.append(gn.formula.dtype_name(y.dtype)))
    out, saved = model.forward(backend.asarray(X, narrow), ctx)
    value, dy = losses.CrossEntropy().bind(backend)(out, backend.asarray(Y))  # other backends own NumPy arrays, too
    model.backward(dy, saved, ctx)
    assert model.dtype == narrow
    assert seen == [narrow] * 6
    names = [gn.formula.dtype_name(a.dtype) for a in (dy, value, model.store.values, model.store.grads)]
    assert names == [narrow, "float32", "float32", "float32"]
    assert {g.dtype.name for g in model.get_gradients().values()} == {"float32"}
    assert model.predict(X).dtype == np.float32


def test_first_gradients_are_those_of_float32(backend, dtype):
    gradients = []
    for kind in ("float32", dtype):
        step = make(backend, kind)
        step.optimizer.learning_rate = 0.0
        step(X, Y)
        gradients.append(step.model.get_gradients())
    for name, g in gradients[0].items():
        assert 0 < error(gradients[1][name], g) < 8 * ROUNDING[dtype], name


def test_training_learns(backend, dtype):
    step = make(backend, dtype, clip_norm=1.0)
    values = [float(backend.to_numpy(step(X, Y))) for _ in range(40)]
    assert values[-1] < 0.4 * values[0]
    assert np.mean(step.model.predict(X).argmax(-1) == Y) > 0.9


def test_small_updates_are_not_lost(backend, dtype):
    """An update of 1e-5 of a weight is nothing in half precision."""
    step = make(backend, dtype)
    step.optimizer.learning_rate = 1e-5
    before = step.model.get_weights()
    for _ in range(2):
        step(X, Y)
    after = step.model.get_weights()
    assert all(np.mean(after[n] != before[n]) > 0.5 for n in before)


def test_weights_are_kept_in_float32(backend, dtype):
    model = network(backend, dtype)
    weights = {n: w + np.float32(1e-6) for n, w in model.get_weights().items()}
    model.set_weights(weights)
    model.freeze("0.*")
    assert all(np.array_equal(w, weights[n]) for n, w in model.get_weights().items())
    for p in model.store.parameters:
        rounded = backend.to_numpy(backend.asarray(p.value, "float32"))
        assert 0 < error(rounded, weights[p.name]) < ROUNDING[dtype] if weights[p.name].std() else True


def test_backends_agree(backend, dtype, cpu):
    """Products are rounded to half precision: now and then a last bit differs."""
    got = []
    for on in (cpu, backend):
        step = make(on, dtype)
        step.optimizer.learning_rate = 0.0
        step(X, Y)
        got.append(step.model.get_gradients())
    for name, g in got[0].items():
        assert error(got[1][name], g) <= 4 * ROUNDING[dtype], name


def test_regression_targets_are_not_rounded(cpu):
    """1001 is 1000 in bfloat16; the prediction is 1000."""
    model = layers.Sequential(layers.Dense(1, use_bias=True)).build((1,), device=cpu, dtype="mixed_bfloat16")
    model.set_weights({"0.weight": np.zeros((1, 1)), "0.bias": np.full(1, 1000.0)})
    step = TrainStep(model, losses.MeanSquaredError(), optim.SGD(0.0))
    assert float(step(np.ones((4, 1)), np.full((4, 1), 1001.0))) == 1.0


def test_a_captured_step(fakegpu):
    """Bit for bit the eager one, and nothing more than a graph, two uploads and a copy."""
    for kind in MIXED:
        runs = []
        for capture in (True, False):
            gpu = fakegpu()
            step = make(gpu, kind, capture=capture, clip_norm=1.0)
            values = [step(X, Y) for _ in range(20)]
            assert gpu.cupy.counts.graphs == 18 * capture
            runs.append([float(v) for v in values] + [w.tobytes() for w in step.model.get_weights().values()])
            gpu.cupy.reset()
            step(X, Y)
            assert (gpu.cupy.counts.synchronisations, gpu.cupy.counts.downloads) == (0, 0)
            assert not capture or gpu.cupy.counts.launches == 1
        assert runs[0] == runs[1]


# The scale of the loss


@pytest.fixture(params=["numpy", "fakegpu"])
def half(request, cpu):
    """A backend with float16, whose step is captured or not."""
    return cpu if request.param == "numpy" else request.getfixturevalue("fakegpu")()


def test_only_float16_scales(cpu):
    assert [make(cpu, d).loss_scale is not None for d in ("float32", *MIXED)] == [False, False, True]


def test_a_step_that_overflows_is_left_out(half):
    step = make(half, "mixed_float16")
    for _ in range(4):
        step(X, Y)
    before, moments = step.model.get_weights(), half.to_numpy(step.optimizer.state["m"]).copy()
    factor = float(half.to_numpy(step.loss_scale.factor))
    step(X * np.float32(1e5), Y)  # infinite in float16
    assert all(np.array_equal(w, before[n]) for n, w in step.model.get_weights().items())
    assert np.array_equal(half.to_numpy(step.optimizer.state["m"]), moments)
    assert float(half.to_numpy(step.optimizer._t)) == 4
    assert float(half.to_numpy(step.loss_scale.factor)) == factor / 2
    step(X, Y)
    assert float(half.to_numpy(step.optimizer._t)) == 5
    assert any(not np.array_equal(w, before[n]) for n, w in step.model.get_weights().items())


def test_the_factor_grows_after_good_steps(half, monkeypatch):
    monkeypatch.setattr(loss_scale, "INTERVAL", 5)
    step = make(half, "mixed_float16")
    factors = []
    for _ in range(11):
        step(X, Y)
        factors.append(float(half.to_numpy(step.loss_scale.factor)))
    assert factors == [65536.0] * 4 + [131072.0] * 5 + [262144.0] * 2


def test_the_loss_is_not_scaled(half, monkeypatch):
    monkeypatch.setattr(loss_scale, "INTERVAL", 1)  # each step changes the factor
    a, b = make(half, "mixed_float16"), make(half, "float32")
    for _ in range(3):
        assert float(a(X, Y)) == pytest.approx(float(b(X, Y)), rel=1e-2)


def test_the_factor_stays_finite(cpu, monkeypatch):
    """Gradients that are zero would let it grow for ever."""
    monkeypatch.setattr(loss_scale, "INTERVAL", 1)
    scale = make(cpu, "mixed_float16").loss_scale
    for _ in range(200):
        scale.adjust(cpu.scalar(0.0, "float32"))
    assert np.isfinite(float(scale.factor))
    scale.adjust(cpu.scalar(1.0, "float32"))
    assert float(scale.factor) == 2.0**126


def test_gradients_that_float16_cannot_hold(half):
    """Targets so near that the gradient of a prediction is 2e-9, where float16 ends at 6e-8."""
    gradients = {}
    for kind in ("float32", "mixed_float16"):
        model = layers.Sequential(layers.Dense(1)).build((1,), device=half, dtype=kind)
        model.set_weights({"0.weight": np.ones((1, 1)), "0.bias": np.zeros(1)})
        step = TrainStep(model, losses.MeanSquaredError(), optim.SGD(0.0))
        x = np.full((64, 1), 0.5, np.float32)
        step(x, x + np.float32(3e-8))
        gradients[kind] = model.get_gradients()["0.bias"][0]
    assert 0 < abs(gradients["float32"]) / 64 < 2e-9
    assert gradients["mixed_float16"] == pytest.approx(gradients["float32"], rel=1e-2)


def test_accumulation_and_clipping_see_the_true_gradients(half):
    norms = []
    for kind in ("float32", "mixed_float16"):
        step = make(half, kind, accumulate=3, clip_norm=1e-3)
        step.optimizer.learning_rate = 0.0
        step(X, Y)
        norms.append(np.sqrt(sum(np.sum(g**2) for g in step.model.get_gradients().values())))
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-3)


# Refusals


def test_an_unknown_type(cpu):
    with pytest.raises(ArgumentError, match="one of float32, float64, mixed_float16, mixed_bfloat16, but got 'half'"):
        network(cpu, "half")


def test_a_namespace_without_the_type():
    from conftest import require

    model = layers.Sequential(layers.Dense(2))
    with pytest.raises(ArrayError, match="array_api_strict has no data type bfloat16"):
        model.build((3,), device=require("strict"), dtype="mixed_bfloat16")
    assert model.built is None


def test_without_ml_dtypes(cpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(ArrayError, match=r"bfloat16 arrays on the host need ml_dtypes\. Run: pip install ml-dtypes"):
        network(cpu, "mixed_bfloat16")
    network(cpu, "mixed_float16")


def test_the_summary_says_so(cpu, capsys):
    network(cpu, "mixed_float16").summary()
    assert "float32 on numpy, computed in float16" in capsys.readouterr().out
