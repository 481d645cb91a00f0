"""Plans for operands that lie in memory in unusual ways: what a kernel would misread is copied or refused."""

from __future__ import annotations

import random
from functools import partial

import ml_dtypes
import numpy as np
import pytest
from kit import beside

from gpunet.errors import FormulaError
from gpunet.formula import column_sum
from gpunet_backends import cuda_plan
from gpunet_backends.numpy_ import NumpyBackend

random_graphs = beside(__file__, "../formula/test_random_graphs.py")
TYPES = {"float64": np.float64, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


@pytest.fixture
def gpu(fakegpu):
    """Memory ends at pages that cannot be read; each kernel runs in three orders of threads."""
    gpu = fakegpu()
    gpu.cupy.guarded, gpu.cupy.orders = True, (0, 1, 5)
    return gpu


def contiguous(gpu, x):
    result = gpu.empty(x.shape, x.dtype.name)
    result._data[...] = x
    return result


def shifted(gpu, x):
    """It begins one element into its memory."""
    result = gpu.empty((x.size + 1,), x.dtype.name)[1:].reshape(x.shape)
    result._data[...] = x
    return result


def apart(gpu, x, gap=1, before=False):
    """Rows with a gap behind them, or before them."""
    wide = gpu.empty((*x.shape[:-1], x.shape[-1] + gap), x.dtype.name)
    result = wide[..., gap:] if before else wide[..., : x.shape[-1]]
    result._data[...] = x
    return result


def numbers(shape, dtype="float32"):
    return np.asarray(np.random.default_rng(0).integers(-8, 9, shape) / 4).astype(dtype)


def add(xp, x, y):
    return x + y


def centred(xp, x, y):
    return (x - xp.mean(x, axis=-1, keepdims=True)) * y


@pytest.mark.parametrize("formula", [add, centred], ids=["map", "rows"])
@pytest.mark.parametrize("shape", [(2, 1, 8), (1, 3, 8), (1, 1, 8), (3, 8), (2, 3, 1), (2, 1, 1), (3, 1)])
def test_operands_that_are_repeated_along_some_axes(shape, formula, gpu):
    x, y = numbers((2, 3, 8)), numbers(shape)
    result = gpu.fuse(formula)(contiguous(gpu, x), contiguous(gpu, y))
    np.testing.assert_allclose(result._data, formula(np, x, y), rtol=1e-6)


@pytest.mark.parametrize("formula", [add, centred], ids=["map", "rows"])
@pytest.mark.parametrize("gap", [1, 2, 3, 4, 8])
def test_rows_that_do_not_begin_at_whole_vectors(gap, formula, gpu):
    """Rows of two vectors of four lie 9 elements apart: the second begins where no vector can be read."""
    x, y = numbers((5, 8)), numbers((8,))
    result = gpu.fuse(formula)(apart(gpu, x, gap), contiguous(gpu, y))
    np.testing.assert_allclose(result._data, formula(np, x, y), rtol=1e-6)


@pytest.mark.parametrize("formula", [add, centred], ids=["map", "rows"])
def test_a_plan_is_not_for_operands_that_begin_elsewhere(formula, gpu):
    """Of the same shape, strides and type, but one element into their memory."""
    x, y = numbers((5, 8)), numbers((8,))
    fused, expected = gpu.fuse(formula), formula(np, x, y)
    for first, second in [(contiguous, contiguous), (shifted, contiguous), (contiguous, shifted), (shifted, shifted)]:
        result = fused(first(gpu, x), second(gpu, y))
        np.testing.assert_allclose(result._data, expected, rtol=1e-6)
    out = shifted(gpu, x)
    for target in (contiguous(gpu, x), out):
        assert fused(contiguous(gpu, x), contiguous(gpu, y), out=target) is target
        np.testing.assert_allclose(target._data, expected, rtol=1e-6)


def both(xp, x, y):
    return x + y, x - y


def test_two_outputs_in_one_memory_are_refused(gpu):
    x, y = contiguous(gpu, numbers((4, 8))), contiguous(gpu, numbers((4, 8)))
    memory = gpu.empty((6, 8), "float32")
    fused, refused = gpu.fuse(both), pytest.raises(FormulaError, match="shares memory with another operand or output")
    for second in (memory[:4], memory[1:5], memory[2:]):
        with refused:
            fused(x, y, out=(memory[:4], second))
    with refused:
        fused(x, y, out=(memory[:4], memory[:4]))
    apart_from_it = gpu.empty((8, 8), "float32")
    a, b = fused(x, y, out=(apart_from_it[:4], apart_from_it[4:]))
    assert np.array_equal(a._data, x._data + y._data)
    assert np.array_equal(b._data, x._data - y._data)


def means(xp, x):
    return xp.mean(x, axis=-1, keepdims=True)


def sum_of_centred(xp, x):
    return column_sum(x - xp.mean(x, axis=-1, keepdims=True))


@pytest.mark.parametrize("first", [means, sum_of_centred])
def test_means_that_are_stored_and_means_that_are_handed_on(first, gpu):
    """One graph, two kernels: what is handed on to a second kernel keeps the arithmetic's precision."""
    x = numbers((6, 16), "float16")
    wide = x.astype(np.float32)
    expected = {means: wide.mean(1, keepdims=True), sum_of_centred: (wide - wide.mean(1, keepdims=True)).sum(0)}
    for formula in sorted(expected, key=lambda formula: formula is not first):
        result = gpu.fuse(formula)(contiguous(gpu, x))._data
        assert result.dtype == ("float16" if formula is means else "float32")
        np.testing.assert_allclose(result, expected[formula], rtol=2e-3, atol=1e-5)


# At random


WAYS = [
    *(contiguous, contiguous, shifted),
    *(partial(apart, gap=gap, before=before) for gap in (1, 3, 4, 8) for before in (False, True)),
]


def random_ways(r, arrays):
    """A layout for each array: contiguous, one element into its memory, or with gaps between rows."""
    return [r.choice(WAYS if x.ndim and r.random() < 0.5 else WAYS[:3]) for x in arrays]


def random_operands(r, seed, dtype):
    """As those of other random formulas, but some are repeated along some axes, and some are float32."""
    rng = np.random.default_rng(seed)
    full = (*(r.choice([1, 2, 3, 5, 40]) for _ in range(r.choice([1, 1, 2]))), r.choice([1, 3, 4, 7, 8, 16, 96, 257]))
    full = full[-2:] if np.prod(full) > 5000 else full
    shapes = {"row": (*full[:-1], 1), "col": full[-1:], "scalar": (), "full": full}
    kinds = ["full", "part", *(r.choice([*shapes, "part"]) for _ in range(r.randint(0, 3)))]
    operands = []
    for i, kind in enumerate(kinds):
        shape = tuple(r.choice([1, n]) for n in full) if kind == "part" else shapes[kind]
        narrow = i == 0 or dtype == np.float64 or r.random() < 0.6
        operands.append(np.asarray(rng.integers(-4, 5, shape) / 2).astype(dtype if narrow else np.float32))
    if r.random() < 0.5:
        whole = r.choice(["int64", "int8", "uint32", "int32"])
        operands.append(rng.integers(0, 8, shapes[r.choice(["row", "full", "scalar"])]).astype(whole))
        return operands, {len(operands) - 1}
    return operands, set()


@pytest.mark.parametrize("dtype", TYPES)
def test_random_formulas_of_operands_in_random_layouts(dtype, gpu, monkeypatch):
    """Of float32 and bfloat16 only shapes and types are compared: rounding differs."""
    monkeypatch.setattr(cuda_plan, "LEAST_BAND", 3)
    monkeypatch.setattr(cuda_plan, "MOST_BLOCKS", 2)
    for case in range(7000, 7020):
        r = random.Random(case)
        operands, integers = random_operands(r, case, TYPES[dtype])
        formula = random_graphs.random_formula(case, integers, r.randint(1, 10))
        expected = NumpyBackend().fuse(formula)(*(x.copy() for x in operands))
        places, free = [], list(range(len(operands)))
        for e in expected:
            fit = [i for i in free if (operands[i].shape, operands[i].dtype) == (e.shape, e.dtype)]
            places.append(r.choice(fit) if fit and r.random() < 0.5 else None)
            free = [i for i in free if i != places[-1]]
        fused, ways, targets = gpu.fuse(formula), random_ways(r, operands), random_ways(r, expected)
        fresh, moved = [r.random() < 0.6 for _ in expected], r.randrange(len(operands))
        for way_moved in (contiguous, shifted, r.choice(WAYS[3:]) if operands[moved].ndim else contiguous):
            ways[moved] = way_moved
            given = [way(gpu, x) for way, x in zip(ways, operands, strict=True)]
            out = tuple(
                given[place] if place is not None else None if new else way(gpu, np.zeros_like(e))
                for place, new, way, e in zip(places, fresh, targets, expected, strict=True)
            )
            gpu.cupy.counts.kernels = 0
            results = fused(*given, out=out)
            assert gpu.cupy.counts.kernels > 0
            for result, wanted, target in zip(results, expected, out, strict=True):
                assert target is None or result is target
                assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype), f"formula {case}"
                if dtype == "float64":
                    limit = 1e-10 * max(1, np.abs(wanted).max())
                    np.testing.assert_allclose(result._data, wanted, rtol=1e-10, atol=limit, err_msg=f"formula {case}")
            for i in free:
                assert np.array_equal(given[i]._data, operands[i]), f"formula {case} wrote operand {i}"
