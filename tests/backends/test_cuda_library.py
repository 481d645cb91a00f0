"""Every formula of the library on a GPU against plain NumPy; and on its stand-in, so that this is known to work."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from kit import beside

from gpunet.formula.shapes import REDUCED
from gpunet_backends.array_api import ArrayAPIBackend

gpus = beside(__file__, "gpus.py")
library, budgets = gpus.library, gpus.budgets
either, check_formula, fetch = gpus.either, gpus.check_formula, gpus.fetch
CASES = library.CASES

SHAPES = {
    "float32": [(600, 12), (2, 70, 13), (9, 33), (6, 260), (3, 1101), (2, 2, 1100)],
    "float64": [(600, 12), (9, 33), (2, 2, 1100)],
}
"""Rows for 8, 32 and 256 threads, with whole vectors and without; several bands of rows."""


@pytest.mark.parametrize("dtype", SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_formulas_agree_with_numpy(name, dtype, either):
    """Special values, too: they give what NumPy gives wherever rounding does not decide."""
    for shape in SHAPES[dtype]:
        for special in (0.0, 0.1):
            check_formula(either, CASES[name], dtype, shape, special=special)


@pytest.mark.parametrize("name", CASES)
def test_rows_that_lie_apart(name, either):
    for shape in [(2, 300, 12), (5, 1100)]:
        check_formula(either, CASES[name], "float32", shape, special=0.1, lay=gpus.apart)


@pytest.mark.parametrize("name", CASES)
def test_results_that_replace_operands(name, either):
    for shape in [(600, 12), (2, 2, 1100)]:
        check_formula(either, CASES[name], "float32", shape, special=0.1, in_place=True)


@pytest.mark.parametrize(("storage", "shape"), [("float16", (5, 16)), ("bfloat16", (7, 13))])
@pytest.mark.parametrize("name", CASES)
def test_half_precision_is_stored_and_computed_in_float32(name, storage, shape, either):
    """One rounding of the float32 result, up to what float32 itself leaves open; sums over rows keep float32."""
    case, half = CASES[name], np.dtype(ml_dtypes.bfloat16 if storage == "bfloat16" else np.float16)
    host = library.operands(case, "float32", shape, 1, 0.0, [library.aligned])
    narrow = [x.astype(half) if x.dtype == np.float32 else x for x in host]
    wide = [x.astype(np.float32) if x.dtype == half else x for x in narrow]
    reference = ArrayAPIBackend(np, None, "reference").fuse(case.formula)
    expected, graph = library.as_tuple(reference(*wide)), reference.graph(wide)
    fused = either.fuse(case.formula)
    runs = [[fetch(either, y) for y in library.as_tuple(fused(*map(either.asarray, narrow)))] for _ in range(2)]
    assert [y.tobytes() for y in runs[0]] == [y.tobytes() for y in runs[1]]
    nodes = [graph.nodes[o] for o in graph.outputs]
    for node, got, wanted, (budget, _) in zip(nodes, runs[0], expected, budgets(graph, wide, "float32"), strict=True):
        assert got.dtype == (half if wanted.dtype == np.float32 and node.op not in REDUCED else wanted.dtype)
        low, high = (wanted - budget).astype(got.dtype), (wanted + budget).astype(got.dtype)
        with np.errstate(all="ignore"):
            assert np.all((got >= low) & (got <= high))
