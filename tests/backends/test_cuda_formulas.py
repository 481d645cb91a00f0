"""Every formula of the library as CUDA kernels, run on the CPU, against plain NumPy source and the reference."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from cuda_on_cpu import CudaError, intact
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit import EPS, beside, error

from gpunet_backends import cuda_emit, cuda_plan
from gpunet_backends.array_api import ArrayAPIBackend
from gpunet_backends.numpy_ import NumpyBackend

library = beside(__file__, "library.py")
budgets = beside(__file__, "rounding.py").budgets
CASES, ALIKE, as_tuple = library.CASES, library.ALIKE, library.as_tuple
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
WAYS = {"copied": "float64", "whole rows": "float32", "in place": "float32"}
once = [HealthCheck.function_scoped_fixture]
hypothesis = settings(max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=once)


@pytest.fixture
def gpu(fakegpu):
    """Memory ends at pages that cannot be read."""
    gpu = fakegpu()
    gpu.cupy.guarded = True
    return gpu


def on(gpu, array):
    """A host array as the GPU's, in the same layout, and at the end of its memory if it is contiguous."""
    if array.flags.c_contiguous and array.flags.aligned and array.ndim:
        result = gpu.empty(array.shape, array.dtype.name)
        result._data[...] = array
        result._data.flags.writeable = array.flags.writeable
        return result
    return gpu.cupy.ndarray(array, gpu.device)


@pytest.mark.parametrize(("name", "way"), [(n, w) for n in CASES for w in WAYS if w == "in place" or n not in ALIKE])
@given(data=st.data())
@hypothesis
def test_kernels_and_plain_numpy_agree(name, way, gpu, data):
    case, dtype = CASES[name], WAYS[way]
    shape, seed = data.draw(library.shapes(way == "whole rows")), data.draw(st.integers(0, 2**32))
    special, layouts = data.draw(library.specials), data.draw(library.layouts(way))
    host = library.operands(case, dtype, shape, seed, special, layouts)
    before = [x.copy() for x in host]
    plain = NumpyBackend().fuse(case.formula)
    expected = as_tuple(plain(*before))
    places = [*case.replaced, None, None][: len(expected)] if way == "in place" else [None] * len(expected)
    for place in places:
        if place is not None:
            host[place] = np.array(host[place])
    operands = [on(gpu, x) for x in host]
    out = tuple(None if place is None else operands[place] for place in places)
    gpu.cupy.reset()
    results = as_tuple(gpu.fuse(case.formula)(*operands, out=out))
    assert bool(gpu.cupy.counts.kernels) == (math.prod(shape) > 0 or name in library.SCALAR)
    assert gpu.cupy.counts.synchronisations == gpu.cupy.counts.uploads == 0
    for i, x in enumerate(operands):
        assert i in places or np.array_equal(x._data, before[i], equal_nan=True)
    limits = budgets(plain.graph(before), before, dtype)
    for place, result, wanted, (budget, undecided) in zip(places, results, expected, limits, strict=True):
        assert place is None or result is operands[place]
        result = result._data
        assert (result.shape, result.dtype) == (wanted.shape, wanted.dtype)
        with np.errstate(all="ignore"):
            alike = (abs(result - wanted) <= budget) | (result == wanted) | (np.isnan(result) & np.isnan(wanted))
        differ = ~(alike | undecided)
        assert not np.any(differ), f"{result[differ]} instead of {wanted[differ]}, at {np.argwhere(differ)}"


SHAPES = [(3, 5, 8), (70, 12), (9, 33), (6, 260), (3, 1100), (2, 4100)]
"""Rows for 8, 32 and 256 threads, whole vectors or not; the sums of several bands of rows."""


@pytest.mark.parametrize(("name", "dtype"), [(n, d) for n in CASES for d in EPS if d == "float32" or n not in ALIKE])
def test_the_order_of_threads_does_not_matter(name, dtype, gpu, monkeypatch):
    """The same bits whatever order threads run in between barriers; maps within 4 eps of NumPy."""
    monkeypatch.setattr(cuda_plan, "LEAST_BAND", 20)
    monkeypatch.setattr(cuda_plan, "MOST_BLOCKS", 2)
    gpu.cupy.orders = (0, 1, 7)
    case, plain = CASES[name], NumpyBackend().fuse(CASES[name].formula)
    fused = gpu.fuse(case.formula)
    for shape in SHAPES:
        host = library.operands(case, dtype, shape, 0, 0.0, [library.aligned])
        graph, expected = plain.graph(host), as_tuple(plain(*host))
        results = as_tuple(fused(*(on(gpu, x) for x in host)))
        for output, result, wanted, (budget, _) in zip(
            graph.outputs, results, expected, budgets(graph, host, dtype), strict=True
        ):
            assert np.all(abs(result._data - wanted) <= budget)
            assert error(result._data, wanted) <= 4 * EPS[dtype] or not library.is_map(graph, output)


@pytest.mark.parametrize(
    ("name", "storage"), [(n, s) for n in CASES for s in ("bfloat16", "float16") if s == "bfloat16" or n not in ALIKE]
)
def test_half_precision_is_stored_and_computed_in_float32(name, storage, gpu):
    """As the reference does: one rounding of the float32 result, up to what float32 itself leaves open."""
    case, half = CASES[name], BFLOAT16 if storage == "bfloat16" else np.dtype(np.float16)
    reference = ArrayAPIBackend(np, None, "reference").fuse(case.formula)
    for shape in [(5, 16), (7, 13)]:
        host = library.operands(case, "float32", shape, 1, 0.0, [library.aligned])
        narrow = [x.astype(half) if x.dtype == np.float32 else x for x in host]
        wide = [x.astype(np.float32) if x.dtype == half else x for x in narrow]
        expected = as_tuple(reference(*wide))
        results = as_tuple(gpu.fuse(case.formula)(*(on(gpu, x) for x in narrow)))
        graph = reference.graph(wide)
        limits, nodes = budgets(graph, wide, "float32"), [graph.nodes[o] for o in graph.outputs]
        for node, result, wanted, (budget, _) in zip(nodes, results, expected, limits, strict=True):
            got, low, high = result._data, wanted - budget, wanted + budget
            stays = node.op in ("column_sum", "total") or node.dtype == "bool"
            assert got.dtype == (wanted.dtype if stays else half)
            with np.errstate(all="ignore"):
                low, high = (low, high) if stays else (low.astype(half), high.astype(half))
                assert np.all((got >= low) & (got <= high)), name


def test_bands_and_blocks_are_added_up(gpu, monkeypatch):
    """Second stages: more bands than threads that add them, more blocks than threads."""
    monkeypatch.setattr(cuda_plan, "LEAST_BAND", 16)
    monkeypatch.setattr(cuda_plan, "MOST_BANDS", 1000)

    def sums(xp, x):
        from gpunet.formula import column_sum, total

        return column_sum(x), total(x), column_sum(x * x)

    x = np.random.default_rng(0).standard_normal((700, 37))
    gpu.cupy.orders = (0, 1, 7)
    for result, wanted in zip(gpu.fuse(sums)(on(gpu, x)), (x.sum(0), x.sum(), (x * x).sum(0)), strict=True):
        assert error(result._data, wanted) < 1e-13
    assert gpu.cupy.counts.kernels == 3  # both column sums in one


@pytest.mark.parametrize("name", ["CrossEntropy", "Adam", "layernorm_backward", "dropout", "Bias+ReLU'"])
def test_counting_in_64_bits(name, gpu, monkeypatch):
    monkeypatch.setattr(cuda_plan, "LARGE", 1)
    case, plain = CASES[name], NumpyBackend().fuse(CASES[name].formula)
    host = library.operands(case, "float32", (70, 12), 0, 0.0, [library.aligned])
    expected = as_tuple(plain(*host))
    for result, wanted in zip(as_tuple(gpu.fuse(case.formula)(*(on(gpu, x) for x in host))), expected, strict=True):
        np.testing.assert_allclose(result._data, wanted, rtol=1e-4, atol=1e-5)
    assert "typedef unsigned long long idx;" in gpu.kernels.sources()[0]


# Would these tests notice?

FAULTS = {
    "no barrier before": ("__syncthreads();  // everybody has read what was here before", ""),
    "no barrier after": ("shared[threadIdx.x / 32] = x;\n    __syncthreads();", "shared[threadIdx.x / 32] = x;"),
    "a lane left out": ("step > 0; step /= 2)", "step > 1; step /= 2)"),
    "a warp left out": ("warp < WIDTH / 32", "warp < WIDTH / 32 - 1"),
    "NaN swallowed by max": ("a > b || a != a ? a : b", "a > b ? a : b"),
    "tail read as zero": ("p[u < left ? u : 0]", "T()"),
    "tail not stored": ("if (u < left) p[u]", "if (u + 1 < left) p[u]"),
    "tail stored too far": ("if (u < left) p[u]", "if (u <= left) p[u]"),
    "last band left out": ("part < parts; part += 16", "part + 1 < parts; part += 16"),
    "column past the end": ("if (j < k) {\n    for", "{\n    for"),
    "a row of the warp left out": ("step >= WIDTH; step /= 2", "step > WIDTH; step /= 2"),
    "no barrier between bands": ("= sum;\n  __syncthreads();", "= sum;"),
    "last block left out": ("part < parts; part += 256", "part + 1 < parts; part += 256"),
    "rounded down": ("(bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16", "bits >> 16"),
    "a rotation": ("{13, 15, 26, 6, 17, 29, 16, 24}", "{13, 15, 26, 6, 17, 29, 16, 23}"),
}


def largest(xp, x, dy):
    return xp.max(x, axis=-1, keepdims=True), xp.maximum(x, dy)


LARGEST = library.Case(largest, "x dy")


def check(gpu, case, shape, dtype="float32", special=0.0):
    """AssertionError or CudaError unless the kernels are right."""
    host = library.operands(case, dtype, shape, 0, special, [library.aligned])
    expected, plain = as_tuple(NumpyBackend().fuse(case.formula)(*host)), NumpyBackend().fuse(case.formula)
    results = as_tuple(gpu.fuse(case.formula)(*(on(gpu, x) for x in host)))
    limits = budgets(plain.graph(host), host, dtype)
    for result, wanted, (budget, undecided) in zip(results, expected, limits, strict=True):
        with np.errstate(all="ignore"):
            alike = (abs(result._data - wanted) <= budget) | (np.isnan(result._data) & np.isnan(wanted)) | undecided
        assert np.all(alike | (result._data == wanted))
        assert intact(result._data) or not result.ndim


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(fault, gpu, monkeypatch):
    old, new = FAULTS[fault]
    text = cuda_emit.prelude()
    assert old in text
    monkeypatch.setattr(cuda_plan, "LEAST_BAND", 20)
    monkeypatch.setattr(cuda_emit, "prelude", lambda: text.replace(old, new, 1))
    gpu.cupy.orders = (0, 1, 7)
    noticed = []
    checks = [
        ("largest", (9, 33)),
        ("CrossEntropy", (9, 33)),
        ("CrossEntropy", (3, 1100)),
        ("layernorm_backward", (70, 37)),
    ]
    checks += [("Adam", (7,)), ("clip: square sum", (70, 260)), ("dropout", (5, 12)), ("MeanSquaredError", (70, 260))]
    for name, shape in checks:
        try:
            check(gpu, CASES.get(name, LARGEST), shape, special=0.1 if name == "largest" else 0.0)
        except (AssertionError, CudaError):
            noticed.append(name)
    try:
        test_half_precision_is_stored_and_computed_in_float32("Tanh", "bfloat16", gpu)
    except AssertionError:
        noticed.append("halves")
    assert noticed


def test_without_a_fault_nothing_is_noticed(gpu, monkeypatch):
    monkeypatch.setitem(FAULTS, "none", ("", ""))
    with pytest.raises(AssertionError):
        test_a_planted_fault_is_noticed("none", gpu, monkeypatch)
