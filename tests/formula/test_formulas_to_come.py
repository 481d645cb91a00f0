"""BatchNorm, LayerNorm, attention, LSTM, AdamW and Lion fit the language, though their layers do not exist yet."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from kit import TOLERANCE, error

spec = importlib.util.spec_from_file_location("formulas", Path(__file__).with_name("formulas.py"))
formulas = importlib.util.module_from_spec(spec)
spec.loader.exec_module(formulas)

cases = pytest.mark.parametrize("name", formulas.CASES)


@cases
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_evaluates_to_the_independent_result(name, dtype, backend):
    formula, operands, expected = formulas.CASES[name]
    own = [backend.asarray(o, dtype if o.dtype.kind == "f" else None) for o in operands]
    results = backend.fuse(formula)(*own)
    results = results if isinstance(results, tuple) else (results,)
    assert len(results) == len(expected)
    for result, wanted in zip(results, expected, strict=True):
        result = backend.to_numpy(result)
        assert result.dtype == dtype
        assert error(result, wanted) <= TOLERANCE[dtype]


@cases
def test_in_place_is_the_same(name, backend):
    formula, operands, _ = formulas.CASES[name]
    fused = backend.fuse(formula)
    own = []
    for o in operands:
        own.append(backend.zeros(o.shape, "float64") if o.dtype.kind == "f" else backend.asarray(o))
        if o.dtype.kind == "f":
            own[-1][...] = backend.asarray(o)
    results = fused(*own)
    results = results if isinstance(results, tuple) else (results,)
    expected = [np.array(backend.to_numpy(r)) for r in results]
    place = next((n for n, r in enumerate(results) if tuple(r.shape) == tuple(own[0].shape)), None)
    if place is None:
        pytest.skip("no output has the first operand's shape")
    out = tuple(own[0] if n == place else None for n in range(len(results)))
    stored = fused(*own, out=out)
    stored = stored if isinstance(stored, tuple) else (stored,)
    assert stored[place] is own[0]
    for result, wanted in zip(stored, expected, strict=True):
        assert error(backend.to_numpy(result), wanted) <= 1e-15
