"""Hypothesis draws shapes, broadcasting, strides and special values; every backend gives the reference's result."""

from __future__ import annotations

from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import EPS

from gpunet.formula import column_sum, erf, index, total

LAST = {"axis": -1, "keepdims": True}
SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-40, -3.0, 1e30]

MAPS = {
    "relu'": lambda xp, a, b: xp.where(a <= 0, 0.0, b),
    "select": lambda xp, a, b: xp.where((a > b) | xp.isnan(a), a * 2, b),
    "both constant": lambda xp, a, b: xp.where(xp.isfinite(a) & ~(b == 0), 1.0, -0.5) + 0 * a + 0 * b,
    "extremes": lambda xp, a, b: xp.maximum(a, b) - xp.minimum(a, 0.0),
    # apart: a sum of them would cancel, and its error be large beside it
    "functions": lambda xp, a, b: (xp.tanh(a + 0 * b), xp.exp(-xp.abs(b)) + 0 * a, xp.log1p(xp.square(b)) + 0 * a),
    "more": lambda xp, a, b: (xp.sign(a) * xp.floor(b), xp.expm1(-xp.abs(a)) + 0 * b, erf(b) + 0 * a),
    "still more": lambda xp, a, b: (xp.sqrt(xp.abs(a)) + 0 * b, xp.sin(xp.minimum(a, 3.0)) + 0 * b),
    "power": lambda xp, a, b: xp.abs(a) ** 2 + 2.0 / (1 + b * b) - (-a) + xp.exp(xp.sqrt(4.0)),
    "position": lambda xp, a, b: xp.where(index(a + b) > 1, a, b) + 0 * a,
}
SUMS = {
    "rows": lambda xp, a, b: xp.sum(a * b, **LAST) + xp.mean(a + b, **LAST),
    "softmax": lambda xp, a, b: (
        xp.exp(a + b - xp.max(a + b, **LAST)) / xp.sum(xp.exp(a + b - xp.max(a + b, **LAST)), **LAST)
    ),
    "columns": lambda xp, a, b: (a + b, column_sum(a * b), total(a + 2 * b)),
    "narrow total": lambda xp, a, b: (total(xp.max(a + b, **LAST)), a * b),
}


@st.composite
def operands(draw):
    """Two shapes that broadcast to a result of 1 to 4 axes; one of them, or an axis, may be missing or 1."""
    full = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    shapes = [full, draw(st.sampled_from([full, full[-1:], full[1:], (*full[:-1], 1), (1,) * len(full), ()]))]
    if draw(st.booleans()) and len(full) > 1:
        axis = draw(st.integers(0, len(full) - 2))
        shapes[1] = (*full[:axis], 1, *full[axis + 1 :])
    if draw(st.booleans()):
        shapes.reverse()
    strided = draw(st.lists(st.booleans(), min_size=2, max_size=2))
    return shapes, strided, draw(st.integers(0, 2**32 - 1))


def arrays(shapes, strided, seed, dtype, special):
    rng = np.random.default_rng(seed)
    result = []
    for shape, stride in zip(shapes, strided, strict=True):
        wide = (*shape[:-1], 2 * shape[-1]) if shape and stride else shape
        x = rng.standard_normal(wide).astype(dtype)
        if special and x.size:
            x = np.where(rng.random(wide) < 0.4, rng.choice(np.array(SPECIAL, dtype), wide), x)
        result.append(x[..., ::2] if shape and stride else np.asarray(x))
    return result


def check(formula, backend, drawn, dtype, special, tolerance, sums_of_magnitudes=False):
    """Against the reference, in units of the result's size, or of the sum of the magnitudes that were added."""
    from conftest import require

    host = arrays(*drawn, dtype, special)
    own = [backend.asarray(h) for h in host]
    results = backend.fuse(formula)(*own)
    expected = require("reference").fuse(formula)(*host)
    results = results if isinstance(results, tuple) else (results,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    magnitudes = require("reference").fuse(formula)(*(np.abs(h) for h in host)) if sums_of_magnitudes else ()
    magnitudes = magnitudes if isinstance(magnitudes, tuple) else (magnitudes,)
    for result, wanted, sums in zip_longest(results, expected, magnitudes, fillvalue=0):
        result, wanted = np.asarray(backend.to_numpy(result)), np.asarray(wanted)
        assert result.shape == wanted.shape
        assert result.dtype == wanted.dtype == dtype
        finite = np.isfinite(wanted)
        assert np.array_equal(result[~finite], wanted[~finite], equal_nan=True)
        scale = max(np.abs(wanted[finite]).max(initial=0), np.abs(sums).max(initial=0))
        assert np.abs(result[finite] - wanted[finite]).max(initial=0) <= tolerance * scale


hypothesis = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def compiled_once(backend, dtype):
    """Numba's kernels for float64 are those for float32 with another type, and each takes a second to compile."""
    if dtype == "float64" and getattr(backend, "jit", False):
        pytest.skip("compiled for float32; test_numba_formulas.py has both types")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MAPS)
@given(drawn=operands(), special=st.booleans())
@hypothesis
def test_maps(name, dtype, drawn, special, backend):
    compiled_once(backend, dtype)
    check(MAPS[name], backend, drawn, dtype, special, 4 * EPS[dtype])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SUMS)
@given(drawn=operands())
@hypothesis
def test_sums(name, dtype, drawn, backend):
    compiled_once(backend, dtype)
    check(SUMS[name], backend, drawn, dtype, False, 8 * EPS[dtype], sums_of_magnitudes=True)
