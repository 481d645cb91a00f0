"""Targets that compiled kernels refuse before anything is written; and some that look alike and are fine."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.errors import FormulaError
from gpunet.formula import column_sum, total
from gpunet_backends import blocks
from gpunet_backends.numpy_ import NumpyBackend, has_jit

pytestmark = pytest.mark.skipif(not has_jit(), reason="Numba is not installed, or GPUNET_JIT=0")


@pytest.fixture
def numba():
    return NumpyBackend(jit=True)


@pytest.fixture(params=["first call", "remembered"])
def fused(request, numba):
    """(x + 1, 3 x), called for the first time or right after a call with targets of the same kind that are fine."""
    formula = numba.fuse(lambda xp, x: (x + 1, 3 * x))

    def call(x, out):
        if request.param == "remembered" and type(out) is tuple and len(out) == 2:
            operand, targets = ones(), [None if o is None else ones() for o in out]
            formula(operand, out=(operand if out[0] is x else targets[0], targets[1]))
        return formula(x, out=out)

    return call


def ones():
    return np.ones((2, 3))


def refused(message, call, *unchanged):
    """The call is refused, and these arrays still hold ones."""
    with pytest.raises((FormulaError, ValueError), match=message):
        call()
    for array in unchanged:
        assert array.tolist() == np.ones(array.shape).tolist()


# ---- overlap

OVERLAP = "shares memory with another operand"


def test_overlap_is_refused(fused):
    flat, other = np.ones(20), ones()
    x, shifted = flat[:6].reshape(2, 3), flat[3:9].reshape(2, 3)
    for out in [(shifted, None), (None, shifted), (x, shifted), (shifted, other), (other, other), (None, x[::-1])]:
        refused(OVERLAP, lambda out=out: fused(x, out=out), flat, other)


def test_an_operand_is_replaced_by_one_output(fused):
    x = ones()
    refused(OVERLAP, lambda: fused(x, out=(x, x)), x)


def test_an_operand_that_is_given_twice_is_not_replaced(numba):
    fused, x = numba.fuse(lambda xp, x, y: x + y), ones()
    fused(ones(), ones(), out=ones())
    fused(y := ones(), ones(), out=y)
    refused(OVERLAP, lambda: fused(x, x, out=x), x)


VIEWS = {"frombuffer": lambda owner: np.frombuffer(owner.data), "as_strided": np.lib.stride_tricks.as_strided}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_overlap_is_seen_where_no_array_owns_the_memory(view, fused):
    owner = np.ones(12)
    x, shifted = view(owner)[:6].reshape(2, 3), view(owner)[3:9].reshape(2, 3)
    refused(OVERLAP, lambda: fused(x, out=(shifted, None)), owner)


def test_views_of_one_buffer_that_do_not_meet_are_accepted(fused):
    flat = np.ones(20)
    x, a, b = (flat[i : i + 6].reshape(2, 3) for i in (0, 6, 12))
    for out in [(a, b), (x, b), (a, None)]:
        flat[...] = 1
        results = fused(x, out=out)
        assert [r.tolist() for r in results] == [[[2] * 3] * 2, [[3] * 3] * 2]
        assert all(o is None or r is o for r, o in zip(results, out, strict=True))
        assert flat[18:].tolist() == [1, 1]


# ---- targets that cannot be written


def read_only(array):
    array.flags.writeable = False
    return array


TARGETS = {"contiguous": ones, "strided": lambda: np.ones((2, 6))[:, ::2], "fortran": lambda: np.ones((3, 2)).T}


@pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("first", ["fresh", "replaced", "given"])
def test_a_second_target_that_is_read_only(first, make, fused):
    x, other, target = ones(), ones(), read_only(make())
    out = ({"fresh": None, "replaced": x, "given": other}[first], target)
    refused("read-only", lambda: fused(x, out=out), x, other, target)


@pytest.mark.parametrize("make", TARGETS.values(), ids=TARGETS)
def test_a_first_target_that_is_read_only(make, fused):
    x, other, target = ones(), ones(), read_only(make())
    refused("read-only", lambda: fused(x, out=(target, other)), x, other, target)


def test_an_operand_that_is_read_only_is_not_replaced(fused):
    x, other = read_only(ones()), ones()
    refused("read-only", lambda: fused(x, out=(x, other)), x, other)


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize(("sum_of", "shape"), [(column_sum, (3,)), (total, ())])
def test_a_sum_whose_target_is_read_only(sum_of, shape, rows, numba, monkeypatch):
    monkeypatch.setattr(blocks, "row_block", lambda k: rows)
    fused = numba.fuse(lambda xp, x: (x + 1, sum_of(x)))
    fused(y := ones(), out=(y, np.ones(shape)))
    x, target = ones(), read_only(np.ones(shape))
    refused("read-only", lambda: fused(x, out=(x, target)), x, target)


# ---- targets and operands that do not fit


@pytest.mark.parametrize("shape", [(3, 2), (1, 2, 3), (6,), (2, 1)])
@pytest.mark.parametrize("dtype", ["float64", "float32", "int64", ">f8"])
def test_a_target_of_another_shape_or_type(dtype, shape, fused):
    x, target = ones(), np.ones(shape, dtype)
    like_it = np.ones((2, 3), dtype)
    for wrong in [target] if dtype == "float64" else [target, like_it]:
        for out in [(wrong, None), (None, wrong), (x, wrong)]:
            message = r"output of shape \(2, 3\) and type float64, but `out` has"
            refused(message, lambda out=out: fused(x, out=out), x, wrong)


@pytest.mark.parametrize("rows", [1, 64])
@pytest.mark.parametrize(("sum_of", "shape"), [(column_sum, (3,)), (total, ())])
def test_a_sum_s_target_of_another_shape_or_type(sum_of, shape, rows, numba, monkeypatch):
    monkeypatch.setattr(blocks, "row_block", lambda k: rows)
    fused = numba.fuse(lambda xp, x: (x + 1, sum_of(x)))
    for wrong in (np.ones(shape, np.float32), np.ones(shape, np.int64), np.ones((1, *shape)), np.ones((2, 3))):
        fused(y := ones(), out=(y, np.ones(shape)))
        x = ones()
        refused("gives an output of shape .* but `out` has", lambda w=wrong, x=x: fused(x, out=(x, w)), x, wrong)


def test_a_target_for_each_output(fused):
    x = ones()
    for out in [x, (x,), (x, None, None), ()]:
        refused("has 2 outputs, but `out` has [013] entries", lambda out=out: fused(x, out=out), x)


def test_operands_of_two_float_types_also_where_one_is_not_read(numba):
    fused, x = numba.fuse(lambda xp, x, unused: 2 * x), ones()
    fused(x, x)
    refused("needs operands of one float type, got float32 and float64", lambda: fused(x, x.astype(np.float32)))
