"""From one spec per layer: every backend against the float64 reference, finite differences and each other."""

from __future__ import annotations

import numpy as np
import pytest
from kit import EPS, LAYERS, TOLERANCE, built, draw, error, inputs, run

import gpunet as gn
from gpunet.errors import ArrayError, ShapeError

specs = pytest.mark.parametrize("spec", LAYERS, ids=lambda s: s.name)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


@specs
@dtypes
def test_forward_is_the_reference(spec, dtype, backend):
    model, x = built(spec, backend, dtype), inputs(spec)
    x = x.astype(dtype) if x.dtype.kind == "f" else x
    y = run(model, x, np.zeros(out_shape(model, spec)))["y"]
    expected = spec.reference(
        x.astype(np.float64) if x.dtype.kind == "f" else x,
        {n: w.astype(np.float64) for n, w in model.get_weights().items()},
    )
    assert y.dtype == dtype
    assert error(y, expected) <= (4 * EPS[dtype] if spec.maps else TOLERANCE[dtype])


def out_shape(model, spec):
    return (spec.shape[0], *model.built[1])


@specs
def test_backward_is_the_derivative(spec, backend):
    errors = gn.gradcheck(spec.make(), spec.shape, device=backend)
    assert ("x" in errors) == (spec.make().indices() is None)
    assert max(errors.values()) < 1e-6


@specs
@dtypes
def test_all_outputs_and_gradients_agree_with_the_reference_backend(spec, dtype, backend, reference):
    model, other = built(spec, backend, dtype), built(spec, reference, dtype)
    x, dy = inputs(spec), draw(1, *out_shape(model, spec))
    results, expected = run(model, x, dy), run(other, x, dy)
    assert results.keys() == expected.keys()
    for name, value in results.items():
        assert value.dtype == dtype
        assert error(value, expected[name]) <= (4 * EPS[dtype] if spec.maps else TOLERANCE[dtype]), name


@pytest.fixture
def reference():
    from conftest import require

    return require("reference")


@specs
def test_inputs_stay_unmodified_and_may_be_strided(spec, backend):
    model = built(spec, backend, "float64")
    x, dy = inputs(spec), draw(1, *out_shape(model, spec))
    dense = run(model, x, dy)
    wide_x, wide_dy = (backend.asarray(np.repeat(a, 2, axis=-1)) for a in (x, dy))
    strided = run(model, wide_x[..., ::2], wide_dy[..., ::2])
    for name, value in dense.items():
        assert error(strided[name], value) <= 1e-12, name
    assert np.array_equal(backend.to_numpy(wide_x)[..., ::2], x), "the layer modified its input"
    assert np.array_equal(backend.to_numpy(wide_dy)[..., ::2], dy), "the layer modified dy"


@specs
def test_backward_leaves_contiguous_dy_alone(spec, backend):
    model = built(spec, backend, "float64")
    x, dy = backend.asarray(inputs(spec)), backend.asarray(draw(1, *out_shape(model, spec)))
    run(model, x, dy)
    assert np.array_equal(backend.to_numpy(x), inputs(spec))
    assert np.array_equal(backend.to_numpy(dy), draw(1, *out_shape(model, spec)))


@specs
@dtypes
def test_an_empty_batch_has_zero_gradients(spec, dtype, backend):
    model = built(spec, backend, dtype)
    results = run(model, inputs(spec)[:0], np.zeros((0, *model.built[1])))
    assert results["y"].shape == (0, *model.built[1])
    assert "dx" not in results or results["dx"].shape == (0, *spec.shape[1:])
    for p in model.store.parameters:
        assert not results[p.name].any()


@specs
def test_one_sample_agrees_with_the_batch(spec, backend):
    if "drop" in repr(spec.make()).lower():
        pytest.skip("dropout draws by position in the batch")
    model, x = built(spec, backend, "float64"), inputs(spec)
    whole, one = model.predict(x), model.predict(x[2:3])
    assert error(one, whole[2:3]) <= 1e-12


@specs
def test_observed_and_merged_runs_agree(spec, backend):
    model = built(spec, backend, "float64")
    x, dy = inputs(spec), draw(1, *out_shape(model, spec))
    seen = []
    merged, observed = run(model, x, dy), run(model, x, dy, observe=lambda layer, y: seen.append((layer, y)))
    assert [layer for layer, _ in seen if layer in model.layers] == model.layers  # layers inside are shown before
    assert error(backend.to_numpy(seen[-1][1]), observed["y"]) == 0
    for name, value in merged.items():
        assert error(observed[name], value) <= 1e-13, name


@specs
def test_gradients_of_two_passes_under_one_context_add(spec, backend):
    model = built(spec, backend, "float64")
    x, dy = (backend.asarray(a) for a in (inputs(spec), draw(1, *out_shape(model, spec))))
    ctx = model.context(training=False)  # a fixed mask: the sum is twice the one
    model.store.begin()
    for _ in range(2):
        _, saved = model.forward(x, ctx)
        model.backward(dy, saved, ctx)
    twice = model.get_gradients()
    model.store.begin()
    _, saved = model.forward(x, ctx)
    model.backward(dy, saved, ctx)
    once = model.get_gradients()
    for name, value in once.items():
        assert error(twice[name], 2 * value) <= 1e-13, name


@specs
def test_a_wrong_shape_is_refused(spec, backend):
    model = built(spec, backend, "float32")
    ctx = model.context(training=False)
    with pytest.raises(ShapeError, match=r"was built for inputs of shape \(…,.*but got \(3, 9, 9, 9\)"):
        model.forward(backend.zeros((3, 9, 9, 9), "float32"), ctx)
    wrong = (
        "computes in float32 but got an input of type" if model.indices() is None else "needs integer indices but got"
    )
    with pytest.raises(ArrayError, match=f"{wrong} float64"):
        model.forward(backend.zeros(spec.shape, "float64"), ctx)
