"""Every formula of the library, compiled by Numba against plain NumPy source."""

from __future__ import annotations

import math
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import EPS, beside, error

from gpunet import losses, optim
from gpunet.pointwise import Pointwise
from gpunet_backends import blocks
from gpunet_backends.numpy_ import NumpyBackend, has_jit

pytestmark = pytest.mark.skipif(not has_jit(), reason="Numba is not installed, or GPUNET_JIT=0")
library = beside(__file__, "library.py")
budgets = beside(__file__, "rounding.py").budgets
CASES, ALIKE, as_tuple = library.CASES, library.ALIKE, library.as_tuple

CUTS = [
    {"FLAT_BLOCK": blocks.FLAT_BLOCK},
    {"row_block": lambda k: 7, "FLAT_BLOCK": 16},
    {"row_block": lambda k: 20, "FLAT_BLOCK": 100, "PARALLEL_FROM": 1, "thread_count": lambda: 3},
]


@st.composite
def calls(draw, way: str):
    """Shape, seed of the values, share of special ones, layouts to choose from, cuts."""
    shape, seed = draw(library.shapes(way == "whole rows")), draw(st.integers(0, 2**32))
    return shape, seed, draw(library.specials), draw(library.layouts(way)), draw(st.sampled_from(CUTS))


@pytest.mark.parametrize(
    ("base", "known"),
    [
        (Pointwise, library.LAYERS),
        (losses.Loss, library.LOSSES),
        (optim.Optimizer, library.OPTIMIZERS),
    ],
)
def test_every_formula_of_the_library_is_a_case(base, known):
    with_formula = {one for one in library.subclasses(base) if "formula" in vars(one)}
    assert with_formula == {type(one) for one in known}
    named = "".join(CASES)
    assert all(one.__name__ in named for one in with_formula)


def test_every_formula_to_come_is_a_case():
    assert set(library.formulas.CASES) <= set(CASES)


# ---- the tests

WAYS = {"copied": "float64", "whole rows": "float32", "in place": "float32"}
once = [HealthCheck.function_scoped_fixture]  # `launches` is cleared by the test
hypothesis = settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=once)


PAIRS = [(n, w) for n in CASES for w in WAYS if w == "in place" or n not in ALIKE]
PAIRS = [(n, w) for i, (n, w) in enumerate(PAIRS) if w != "whole rows" or n in library.SUMMING or i % 5 == 0]
"""How a kernel finds rows that lie apart depends on its sums, not on the expression: of maps every fifth is tried."""


@pytest.mark.parametrize(("name", "way"), PAIRS)
@given(data=st.data())
@hypothesis
def test_compiled_and_plain_agree(name, way, launches, data):
    case, dtype = CASES[name], WAYS[way]
    shape, seed, special, layouts, cuts = data.draw(calls(way))
    given_operands = library.operands(case, dtype, shape, seed, special, layouts)
    before = [x.copy() for x in given_operands]
    plain = NumpyBackend().fuse(case.formula)
    expected = as_tuple(plain(*given_operands))
    places = [*case.replaced, None, None][: len(expected)] if way == "in place" else [None] * len(expected)
    for place in places:
        if place is not None:
            given_operands[place] = np.array(given_operands[place])
    out = tuple(None if place is None else given_operands[place] for place in places)
    launches.clear()
    with patch.multiple(blocks, **cuts):
        results = as_tuple(NumpyBackend(jit=True).fuse(case.formula)(*given_operands, out=out))
    assert bool(launches) == (math.prod(shape) > 0 and name not in library.SCALAR)
    untouched = [i for i in range(len(before)) if i not in places]
    assert all(np.array_equal(given_operands[i], before[i], equal_nan=True) for i in untouched)
    limits = budgets(plain.graph(before), before, dtype)
    for result, wanted, (budget, undecided) in zip(results, expected, limits, strict=True):
        assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)
        assert special or not np.any(undecided)
        with np.errstate(all="ignore"):
            alike = (abs(result - wanted) <= budget) | (result == wanted) | (np.isnan(result) & np.isnan(wanted))
        differ = ~(alike | undecided)
        assert not np.any(differ), f"{result[differ]} instead of {wanted[differ]}, at {np.argwhere(differ)}"


ONE_KERNEL = [n for n in CASES if n not in library.SCALAR]


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, d) for n in ONE_KERNEL for d in EPS if d == "float32" or n not in ALIKE]
)
def test_maps_agree_within_4_eps(name, dtype, launches):
    case, plain = CASES[name], NumpyBackend().fuse(CASES[name].formula)
    given_operands = library.operands(case, dtype, (64, 33), 0, 0.0, [library.aligned])
    graph, expected = plain.graph(given_operands), as_tuple(plain(*given_operands))
    results = as_tuple(NumpyBackend(jit=True).fuse(case.formula)(*given_operands))
    assert len(launches) == 1
    for output, result, wanted in zip(graph.outputs, results, expected, strict=True):
        assert error(result, wanted) <= 4 * EPS[dtype] or not library.is_map(graph, output)
