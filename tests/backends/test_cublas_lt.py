"""LtMatmul on a cuBLASLt that works on host memory; at the end on the real library and on a GPU, where there is one."""

import ctypes
import gc
import re
import sys
from ctypes import addressof, c_int64, c_size_t
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import fake_cublas_lt
import numpy as np
import pytest
from fake_cublas_lt import ATTRIBUTES, PREFIX, FakeCublasLt
from fakegpu import Counts, FakeCupy
from hypothesis import given, settings
from hypothesis import strategies as st

from gpunet.errors import DeviceError, ShapeError
from gpunet_backends import cublas_lt
from gpunet_backends.cublas_lt import LtMatmul, load

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def dtype_named(name):
    """bfloat16 is ml_dtypes'."""
    if name == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(name)


def opened(**options) -> LtMatmul:
    cupy = FakeCupy()
    return LtMatmul(cupy, FakeCublasLt(cupy.submit, lambda: cupy.recorded is not None), **options)


@pytest.fixture(scope="module")
def shared() -> LtMatmul:
    return opened()


@pytest.fixture
def fresh() -> LtMatmul:
    return opened()


# How an array may lie. What is between its elements is NaN: a product that reads it shows it.


def padded(cupy, x, *, before=(0, 0), after=(0, 0), by=(1, 1), transposed=False):
    """A view of a larger array of NaN: elements before and after it, and between, along the last two axes."""
    x = x.swapaxes(-1, -2) if transposed else x
    sizes = [b + n * d + a for n, b, a, d in zip(x.shape[-2:], before, after, by, strict=True)]
    host = np.full((*x.shape[:-2], *sizes), np.nan, x.dtype)
    cut = (..., *(slice(b, b + n * d, d) for n, b, d in zip(x.shape[-2:], before, by, strict=True)))
    host[cut] = x
    view = cupy.asarray(host)[cut]
    return view.swapaxes(-1, -2) if transposed else view


LAYOUTS = {
    "contiguous": padded,
    "transposed": lambda cupy, x: padded(cupy, x, transposed=True),
    "part of rows": lambda cupy, x: padded(cupy, x, before=(0, 1), after=(0, 2)),
    "part of columns": lambda cupy, x: padded(cupy, x, before=(2, 1), after=(1, 3), transposed=True),
    "every second row": lambda cupy, x: padded(cupy, x, by=(2, 1)),
    "every second number": lambda cupy, x: padded(cupy, x, by=(1, 2)),
    "backwards": lambda cupy, x: cupy.asarray(x[..., ::-1, :].copy())[..., ::-1, :],
    "columns backwards": lambda cupy, x: cupy.asarray(x[..., ::-1].copy())[..., ::-1],
    "one row for all": lambda cupy, x: cupy.broadcast_to(cupy.asarray(x[..., :1, :]), x.shape),
    "one column for all": lambda cupy, x: cupy.broadcast_to(cupy.asarray(x[..., :1]), x.shape),
}
"""They hold x, but for the last two, which repeat its first row or column."""

SHAPES = {
    "plain": ((4, 3), (3, 5)),
    "vectors": ((1, 3), (3, 1)),
    "row": ((1, 3), (3, 5)),
    "column": ((4, 3), (3, 1)),
    "outer": ((4, 1), (1, 5)),
    "one number": ((1, 1), (1, 1)),
    "batched": ((2, 4, 3), (2, 3, 5)),
    "one b": ((2, 4, 3), (3, 5)),
    "one b, rows": ((6, 1, 3), (3, 5)),
    "one a": ((4, 3), (2, 3, 5)),
    "length 1": ((1, 4, 3), (2, 3, 5)),
    "deep": ((2, 3, 4, 3), (2, 3, 3, 5)),
    "deep, one b": ((2, 3, 4, 3), (1, 1, 3, 5)),
    "deep, crossed": ((2, 1, 4, 3), (3, 3, 5)),
    "no rows": ((0, 3), (3, 5)),
    "no columns": ((4, 3), (3, 0)),
    "no terms": ((4, 0), (0, 5)),
    "no matrices": ((0, 4, 3), (3, 5)),
    "no terms, batched": ((2, 4, 0), (0, 5)),
}


def operands(shapes, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def expected(a, b, start=None):
    """The product in float64 and how far off a result may be, from the rounding of sums and of the result."""
    wide = [np.asarray(x, np.float64) for x in (a, b)]
    name = a.dtype.name
    sums = ROUNDING["float64" if name == "float64" else "float32"]
    with np.errstate(all="ignore"):
        result, magnitude = wide[0] @ wide[1], abs(wide[0]) @ abs(wide[1])
    if start is not None:
        start = np.asarray(start, np.float64)
        result, magnitude = result + start, magnitude + abs(start)
    return result, (a.shape[-1] + 2) * sums * magnitude + ROUNDING[name] * abs(result) + 2.0**-25 * (name == "float16")


def agree(y, a, b, start=None):
    result, tolerance = expected(a, b, start)
    assert y.shape == result.shape
    assert y.dtype == a.dtype
    np.testing.assert_array_less(abs(np.asarray(y.get(), np.float64) - result), tolerance + 1e-300)


# Results


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_fresh_results(shapes, dtype, shared):
    hosts = operands(shapes, dtype_named(dtype))
    for made in product(LAYOUTS.values(), repeat=2):
        a, b = (make(shared.cupy, host) for make, host in zip(made, hosts, strict=True))
        before = a.get(), b.get()
        y = shared.matmul(a, b)
        agree(y, *before)
        assert y.flags.c_contiguous
        for x, host in zip((a, b), before, strict=True):
            np.testing.assert_array_equal(x.get(), host)


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("accumulate", [False, True])
def test_results_in_place(shapes, dtype, accumulate, shared):
    hosts = operands(shapes, dtype_named(dtype))
    shape = (*np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2]), shapes[0][-2], shapes[1][-1])
    for lies in list(LAYOUTS)[:-2]:
        start = operands([shape], hosts[0].dtype, seed=1)[0]
        out = LAYOUTS[lies](shared.cupy, start if accumulate else np.full_like(start, np.nan))
        for made in (LAYOUTS["contiguous"],) * 2, (LAYOUTS["transposed"], LAYOUTS["every second number"]):
            a, b = (make(shared.cupy, host) for make, host in zip(made, hosts, strict=True))
            assert shared.matmul(a, b, out, accumulate) is out
            agree(out, *hosts, start if accumulate else None)
            start = out.get()


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("cut", [np.s_[1:5, 2:7], np.s_[::2, 1:6], np.s_[:4, ::2], np.s_[3::-1, :5]])
def test_what_is_around_a_result_stays(cut, accumulate, fresh):
    (a, b), around = operands([(4, 3), (3, 5)], np.float32), np.arange(100, dtype=np.float32).reshape(10, 10)
    store = fresh.cupy.asarray(around)
    want = around.copy()
    want[:8][cut] = a @ b + (want[:8][cut] if accumulate else 0)
    fresh.matmul(fresh.cupy.asarray(a), fresh.cupy.asarray(b), store[:8][cut], accumulate)
    np.testing.assert_allclose(store.get(), want, rtol=1e-6)


def test_into_a_flat_store(fresh):
    (a, b), store = operands([(5, 3), (5, 4)], np.float32), fresh.cupy.zeros((20,), "float32")
    xs, out = [fresh.cupy.asarray(x) for x in (a, b)], fresh.cupy.reshape(store[7:19], (3, 4))
    fresh.matmul(xs[0].T, xs[1], out)
    fresh.matmul(xs[0].T, xs[1], out, accumulate=True)
    want = np.concatenate([np.zeros(7), 2 * (a.T @ b).ravel(), np.zeros(1)])
    np.testing.assert_allclose(store.get(), want, rtol=1e-5, atol=1e-6)


def test_special_values_are_kept(fresh):
    a, b = np.array([[np.nan, 1.0], [np.inf, 1.0], [1.0, 1.0]]), np.ones((2, 2))
    y = fresh.matmul(fresh.cupy.asarray(a), fresh.cupy.asarray(b)).get()
    assert np.array_equal(y, np.array([[np.nan] * 2, [np.inf] * 2, [2.0] * 2]), equal_nan=True)


@st.composite
def drawn(draw):
    """Shapes that broadcast, and for each operand how it lies: order of axes, gaps, direction, start."""
    sizes = st.integers(1, 4)
    lead, m, k, n = draw(st.lists(sizes, max_size=3)), draw(sizes), draw(sizes), draw(sizes)
    parts = []
    for matrix in ((m, k), (k, n)):
        kept = lead[draw(st.integers(0, len(lead))) :]
        parts.append((*(size if draw(st.booleans()) else 1 for size in kept), *matrix))
    shapes = [*parts, (*np.broadcast_shapes(parts[0][:-2], parts[1][:-2]), m, n)]
    lies = [
        (
            draw(st.permutations(range(len(shape)))),
            draw(st.lists(st.sampled_from([1, 1, 2, -1]), min_size=len(shape), max_size=len(shape))),
            draw(st.lists(st.integers(0, 2), min_size=len(shape), max_size=len(shape))),
        )
        for shape in shapes
    ]
    return shapes, lies, draw(st.sampled_from(["fresh", "out", "accumulate"]))


def lying(cupy, x, order, steps, more):
    """X as a view whose axes lie in this order, some of them backwards, with NaN between and after."""
    host = np.full([x.shape[i] * abs(steps[i]) + more[i] for i in order], np.nan, x.dtype)
    back = np.argsort(order)

    def cut(whole):
        whole = whole.transpose(*map(int, back))
        whole = whole[tuple(slice(0, n * abs(s), abs(s)) for n, s in zip(x.shape, steps, strict=True))]
        return whole[tuple(slice(None, None, -1 if s < 0 else 1) for s in steps)]

    cut(host)[...] = x
    return cut(cupy.asarray(host))


@given(drawn(), st.sampled_from(["float64", "float32", "float16"]))
@settings(max_examples=300, deadline=None)
def test_any_layout(shared, case, dtype):
    shapes, lies, into = case
    a, b, start = operands(shapes, np.dtype(dtype))
    xs = [lying(shared.cupy, x, *how) for x, how in zip((a, b, start), lies, strict=True)]
    if into == "fresh":
        agree(shared.matmul(*xs[:2]), a, b)
    else:
        agree(shared.matmul(*xs, accumulate=into == "accumulate"), a, b, start if into == "accumulate" else None)
    for x, host in zip(xs, (a, b), strict=False):
        np.testing.assert_array_equal(x.get(), host)


# What is asked of the library


def test_no_copies_of_what_lies_well(fresh):
    good = ["contiguous", "transposed", "part of rows", "part of columns", "every second row"]
    hosts = operands([(2, 4, 3), (2, 3, 5)], np.float32)
    for made in product(good, repeat=2):
        a, b = (LAYOUTS[name](fresh.cupy, host) for name, host in zip(made, hosts, strict=True))
        out = LAYOUTS["part of rows"](fresh.cupy, np.zeros((2, 4, 5), np.float32))
        fresh.cupy.reset()
        fresh.matmul(a, b, out, accumulate=True)
        assert fresh.cupy.counts == Counts(launches=1), made


@pytest.mark.parametrize("name", ["one b", "one b, rows", "deep, one b"])
def test_one_b_for_all_is_one_larger_product(name, fresh):
    a, b = (fresh.cupy.asarray(x) for x in operands(SHAPES[name], np.float32))
    fresh.matmul(a, b)
    layouts = fresh.lt.products[0].layouts
    assert [(x["COLS"], x["BATCH_COUNT"]) for x in layouts[1:]] == [(a.size // 3, 1)] * 3


@pytest.mark.parametrize("lies", ["transposed", "part of rows"])
def test_one_b_for_rows_with_gaps_is_read_in_place(lies, fresh):
    a, b = operands([(2, 4, 3), (3, 5)], np.float32)
    a, b = LAYOUTS[lies](fresh.cupy, a), fresh.cupy.asarray(b)
    fresh.cupy.reset()
    fresh.matmul(a, b)
    assert fresh.cupy.counts.launches == 1


def test_a_broadcast_batch_is_read_in_place(fresh):
    a, b = (fresh.cupy.asarray(x) for x in operands([(4, 3), (6, 3, 5)], np.float32))
    fresh.matmul(a, b)
    steps = [(x["BATCH_COUNT"], x["STRIDED_BATCH_OFFSET"]) for x in fresh.lt.products[0].layouts]
    assert steps == [(6, 15), (6, 0), (6, 20), (6, 20)]


def test_heads_that_lie_side_by_side_are_copied(fresh):
    """(B, T, H, D) seen as (B, H, T, D): no single step leads from one matrix to the next."""
    q, k = (fresh.cupy.asarray(x).swapaxes(1, 2) for x in operands([(2, 5, 3, 4)] * 2, np.float32))
    out = fresh.cupy.zeros((2, 5, 3, 5), "float32").swapaxes(1, 2)
    for into, launches in ((None, 3), (out, 4)):
        fresh.cupy.reset()
        y = fresh.matmul(q, k.swapaxes(-1, -2), into)
        assert fresh.cupy.counts.launches == launches
        agree(y, q.get(), k.get().swapaxes(-1, -2))


@pytest.mark.parametrize("accumulate", [False, True])
def test_a_scattered_result_costs_its_copies(accumulate, fresh):
    a, b = (fresh.cupy.asarray(x) for x in operands([(4, 3), (3, 5)], np.float32))
    out = fresh.cupy.zeros((5, 4), "float32").T
    fresh.cupy.reset()
    fresh.matmul(a, b, out, accumulate)
    assert fresh.cupy.counts.launches == 2 + accumulate


def test_the_types_of_sums(fresh):
    types = {}
    for name in ("float64", "float32", "float16"):
        a, b = (fresh.cupy.asarray(x) for x in operands([(4, 3), (3, 5)], name))
        fresh.matmul(a, b)
        types[name] = fresh.lt.products[-1].operation
    computed = {name: (x["COMPUTE_TYPE"], x["SCALE_TYPE"]) for name, x in types.items()}
    single = fake_cublas_lt.COMPUTE_32F, fake_cublas_lt.R_32F
    assert computed == {
        "float64": (fake_cublas_lt.COMPUTE_64F, fake_cublas_lt.R_64F),
        "float32": single,
        "float16": single,
    }


def test_tf32_is_asked_for():
    a, b = operands([(64, 256), (256, 32)], np.float32)
    errors = []
    for products in (opened(), opened(tf32=True)):
        y = products.matmul(products.cupy.asarray(a), products.cupy.asarray(b)).get()
        errors.append(abs(y - a.astype(np.float64) @ b).max() / abs(a @ b).max())
    assert errors[0] < 1e-6 < 1e-5 < errors[1] < 1e-2
    assert products.lt.products[0].operation["COMPUTE_TYPE"] == fake_cublas_lt.COMPUTE_32F_FAST_TF32
    for name, compute in (("float64", fake_cublas_lt.COMPUTE_64F), ("float16", fake_cublas_lt.COMPUTE_32F)):
        products.matmul(*(products.cupy.asarray(x) for x in operands([(4, 3), (3, 5)], name)))
        assert products.lt.products[-1].operation["COMPUTE_TYPE"] == compute


@pytest.mark.parametrize(("start", "alignment"), [(0, 16), (1, 4), (2, 8), (3, 4), (4, 16)])
def test_the_alignment_is_that_of_the_pointers(start, alignment, fresh):
    memory = fresh.cupy.empty((64,), "float32")
    a = fresh.cupy.reshape(memory[start : start + 4], (1, 4))
    a[...] = fresh.cupy.ones((1, 4), "float32")
    fresh.matmul(a, fresh.cupy.zeros((4, 3), "float32"), fresh.cupy.zeros((1, 3), "float32"))
    wish = fresh.lt.products[0].preference
    assert {wish[f"MIN_ALIGNMENT_{x}_BYTES"] for x in "ABCD"} == {alignment}


@pytest.mark.parametrize(("capability", "size"), [("75", 8), ("90", 32), ("103", 32), ("120", 32)])
def test_the_workspace(capability, size):
    cupy = FakeCupy()
    cupy.cuda.Device = lambda: SimpleNamespace(compute_capability=capability)
    products = LtMatmul(cupy, FakeCublasLt(cupy.submit))
    assert products.workspace_bytes == size * 2**20
    assert products.workspaces == {}


def test_each_stream_has_its_workspace(fresh):
    a = fresh.cupy.zeros((2, 2), "float32")
    streams = [fresh.cupy.stream, fresh.cupy.cuda.Stream(), fresh.cupy.cuda.Stream()]
    for stream in streams * 2:
        with stream:
            fresh.matmul(a, a)
    assert list(fresh.workspaces) == [stream.ptr for stream in streams]
    assert len(set(fresh.workspaces.values())) == 3


# Plans


def test_a_signature_is_planned_once(fresh):
    cupy = fresh.cupy
    a, b, out = (cupy.asarray(x) for x in operands([(4, 3), (3, 5), (4, 5)], np.float32))
    calls = [lambda: fresh.matmul(a, b), lambda: fresh.matmul(a, b, out), lambda: fresh.matmul(a, b, out, True)]
    for call in calls * 3:
        call()
    assert (fresh.lt.heuristics, len(fresh.lt.products)) == (3, 9)
    others = [cupy.asarray(x) for x in operands([(4, 3), (3, 5)], np.float32, seed=1)]
    agree(fresh.matmul(*others), *(x.get() for x in others))
    assert fresh.lt.heuristics == 3


def test_what_differs_is_planned_anew(fresh):
    cupy = fresh.cupy
    a, b = (cupy.asarray(x) for x in operands([(4, 4), (4, 4)], np.float32))
    wide, memory = cupy.zeros((4, 8), "float32"), cupy.zeros((40,), "float32")
    for x in (a, a.T, wide[:, :4], cupy.reshape(memory[1:17], (4, 4)), a[:2], cupy.reshape(memory[:32], (2, 4, 4))):
        fresh.matmul(x, b)
    assert fresh.lt.heuristics == 6
    fresh.matmul(*(cupy.astype(x, "float64") for x in (a, b)))
    assert fresh.lt.heuristics == 7


def test_plans_are_bounded_and_destroyed(fresh, monkeypatch):
    monkeypatch.setattr(cublas_lt, "PLANS", 3)
    b = fresh.cupy.zeros((4, 4), "float32")
    alive = []
    for rows in range(1, 8):
        fresh.matmul(fresh.cupy.zeros((rows, 4), "float32"), b)
        gc.collect()
        alive.append(len(fresh.lt.objects))
    assert alive == [1 + 5 * n for n in (1, 2, 3, 3, 3, 3, 3)]
    fresh.matmul(fresh.cupy.zeros((7, 4), "float32"), b)
    assert fresh.lt.heuristics == 7
    fresh.matmul(fresh.cupy.zeros((1, 4), "float32"), b)
    assert fresh.lt.heuristics == 8


def test_a_known_signature_costs_few_calls(fresh):
    a, b, out = (fresh.cupy.asarray(x) for x in operands([(4, 3), (3, 5), (4, 5)], np.float32))
    called = []
    for arguments in ((a, b), (a, b, out), (a, b, out, True)):
        fresh.matmul(*arguments)
        called.append(0)

        def count(frame, event, _):
            called[-1] += event == "call" and frame.f_code.co_filename == cublas_lt.__file__

        sys.setprofile(count)
        try:
            fresh.matmul(*arguments)
        finally:
            sys.setprofile(None)
    assert called == [3, 2, 2]


# Capture


def test_a_product_is_captured(fresh):
    cupy = fresh.cupy
    (a, b), out = operands([(4, 3), (3, 5)], np.float32), cupy.zeros((4, 5), "float32")
    xs, pool = [cupy.asarray(x) for x in (a, b)], cupy.cuda.MemoryPool()
    fresh.matmul(*xs, out)
    fresh.matmul(*xs, out, accumulate=True)
    before = out.get()
    with cupy.cuda.Stream(non_blocking=True) as stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        fresh.matmul(*xs, out, accumulate=True)
        graph = stream.end_capture()
    np.testing.assert_array_equal(out.get(), before)  # captured, not run
    xs[0] *= 2.0
    graph.launch()
    graph.launch()
    np.testing.assert_allclose(out.get(), 6 * (a @ b), rtol=1e-5)


def test_a_first_product_is_not_captured(fresh):
    a = fresh.cupy.zeros((2, 2), "float32")
    with (
        fresh.cupy.capturing(),
        pytest.raises(RuntimeError, match=r"\(2, 2\) times \(2, 2\) in float32 cannot begin .* Run the same step once"),
    ):
        fresh.matmul(a, a)
    assert fresh.lt.heuristics == 0
    fresh.matmul(a, a)
    with fresh.cupy.capturing():
        fresh.matmul(a, a)


# What is refused, and what goes to CuPy


@pytest.mark.parametrize(
    "shapes", [((2, 3), (4, 5)), ((3,), (3, 5)), ((2, 3), (3,)), ((2, 2, 3), (3, 3, 5)), ((), (3, 5)), ((0, 3), (4, 0))]
)
def test_shapes_that_do_not_fit(shapes, fresh):
    a, b = (fresh.cupy.zeros(shape, "float32") for shape in shapes)
    message = f"needs leading axes that broadcast, but got {shapes[0]} and {shapes[1]}. Reshape one."
    with pytest.raises(ShapeError, match=re.escape(message)):
        fresh.matmul(a, b)


@pytest.mark.parametrize("shape", [(4, 4), (5, 4), (1, 4, 5), (4,), (0, 5)])
def test_a_result_that_does_not_fit(shape, fresh):
    a, b = (fresh.cupy.zeros(s, "float32") for s in ((4, 3), (3, 5)))
    out = fresh.cupy.ones(shape, "float32")
    for accumulate in (False, True):
        with pytest.raises(ValueError, match=re.escape(f"is (4, 5), but out is {shape}. Pass out of that shape.")):
            fresh.matmul(a, b, out, accumulate)
    assert (out.get() == 1).all()


@pytest.mark.parametrize("types", [("int32", "int32"), ("int64", "float64"), ("float32", "float64")])
def test_other_types_go_to_cupy(types, fresh):
    a, b = (fresh.cupy.asarray(x, t) for x, t in zip(operands([(4, 3), (3, 5)], np.float64), types, strict=True))
    y = fresh.matmul(a, b)
    want = a.get() @ b.get()
    assert y.dtype == want.dtype
    out = fresh.cupy.ones(want.shape, want.dtype)
    fresh.matmul(a, b, out, accumulate=True)
    np.testing.assert_allclose(out.get(), want + 1)
    assert fresh.matmul(a, b, out) is out
    for result in (y, out):
        np.testing.assert_array_equal(result.get(), want)
    assert fresh.lt.products == []


@pytest.mark.parametrize(("found", "message"), [((0, 0), "0 found"), ((1, 15), "1 found, the first has status 15")])
def test_no_algorithm(found, message, fresh):
    a, b = (fresh.cupy.zeros(s, "float32") for s in ((4, 3), (3, 5)))
    fresh.lt.algorithms = found
    message = re.escape("cuBLASLt has no algorithm for (4, 3) times (3, 5) in float32: ") + message
    with pytest.raises(RuntimeError, match=message):
        fresh.matmul(a, b)
    fresh.lt.algorithms = (1, 0)
    fresh.matmul(a, b)


def test_a_search_that_fails(fresh, monkeypatch):
    def fail(*arguments):
        fake_cublas_lt.fail("MatmulAlgoGetHeuristic", "NOT_SUPPORTED")

    monkeypatch.setattr(fresh.lt, "cublasLtMatmulAlgoGetHeuristic", fail, raising=False)
    a = fresh.cupy.zeros((2, 2), "float32")
    with pytest.raises(RuntimeError, match=r"\(2, 2\) times \(2, 2\) in float32: .* CUBLAS_STATUS_NOT_SUPPORTED"):
        fresh.matmul(a, a)
    gc.collect()
    assert [x.kind for x in fresh.lt.objects.values()] == ["Handle"]  # nothing is left behind


class DynamicLibNotFoundError(RuntimeError):
    """cuda.pathfinder's."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DynamicLibNotFoundError("libcublasLt.so.13"), r"the CUDA library cublasLt is missing\. Run: pip install "),
        (OSError("bad magic\nnumber"), r"the CUDA library cublasLt cannot be loaded: bad magic\. Run: pip install "),
    ],
)
def test_a_library_that_is_missing(error, message, monkeypatch):
    def find(name):
        assert name == "cublasLt"
        raise error

    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", SimpleNamespace(load_nvidia_dynamic_lib=find))
    with pytest.raises(DeviceError, match=message + r'"gpunet.*, or use device="cpu"\.$'):
        load()


# The real library, which describes matrices without a GPU


@pytest.fixture(scope="module")
def real():
    try:
        return load()
    except DeviceError as error:
        pytest.skip(f"not run on the real library: {error}")


def header_of(library) -> dict[str, int]:
    """The numbers in the headers that NVIDIA's packages have beside the library."""
    folder = Path(library._name).parent.parent / "include"
    files = [folder / name for name in ("cublasLt.h", "cublas_api.h")]
    if not all(file.exists() for file in files):
        pytest.skip(f"no headers in {folder}")
    texts = [file.read_text() for file in (*files, *folder.glob("library_types.h"))]
    return {name: int(n) for text in texts for name, n in re.findall(r"^\s*(CU\w+)\s*=\s*(\d+)\b", text, re.M)}


def test_numbers_are_those_of_the_headers(real):
    header = header_of(real)
    used = {name: n for name, n in vars(cublas_lt).items() if re.match("CUBLAS|CUDA_R", name)}
    faked = {PREFIX[kind] + name: n for kind, names in ATTRIBUTES.items() for name, (n, _) in names.items()}
    faked |= {f"CUDA_{name}": n for name, n in vars(fake_cublas_lt).items() if name.startswith("R_")}
    faked |= {f"CUBLAS_{name}": n for name, n in vars(fake_cublas_lt).items() if name.startswith("COMPUTE_")}
    assert {**used, **faked} == {**faked, **used}
    assert all(name in header for name in used | faked if name.startswith("CUBLAS"))
    for name, n in (used | faked).items():
        assert header.get(name, n) == n, name


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_sizes_are_those_of_the_library(kind, real):
    made, written = ctypes.c_void_p(), c_size_t()
    arguments = {"MatmulDesc": (68, 0), "MatrixLayout": (0, 2, 3, 4), "MatmulPreference": ()}[kind]
    getattr(real, f"cublasLt{kind}Create")(addressof(made), *arguments)
    for number, ctype in ATTRIBUTES[kind].values():
        status = getattr(real, f"cublasLt{kind}GetAttribute")(made, number, None, c_size_t(0), ctypes.byref(written))
        assert (status, written.value) == (0, ctypes.sizeof(ctype))
    with pytest.raises(RuntimeError, match=f"cublasLt{kind}SetAttribute failed with CUBLAS_STATUS_INVALID_VALUE"):
        getattr(real, f"cublasLt{kind}SetAttribute")(made.value, 1, addressof(c_int64(0)), 3)
    getattr(real, f"cublasLt{kind}Destroy")(made.value)


def test_the_library_takes_what_is_described(real, fresh):
    """Objects are the library's; where it needs a GPU, the fake has the same ones and compares."""
    fake, twins = fresh.lt, {}

    class Both:
        """Every object is made twice."""

        def __getattr__(self, name):
            if not re.search("Create|SetAttribute|Destroy", name) or name == "cublasLtCreate":
                return getattr(fake, name)

            def call(first, *rest):
                if name.endswith("Create"):
                    pointer = ctypes.c_void_p()
                    getattr(real, name)(addressof(pointer), *rest)
                    getattr(fake, name)(first, *rest)
                    twins[ctypes.c_uint64.from_address(first).value] = pointer.value
                else:
                    getattr(real, name)(twins[first], *rest)
                    getattr(fake, name)(first, *rest)

            return call

        def cublasLtMatmulAlgoGetHeuristic(self, handle, *rest):
            for thing in rest[:6]:
                kind, attributes = fake.objects[thing]
                for name, (number, ctype) in ATTRIBUTES[kind].items():
                    value = ctype()
                    get = getattr(real, f"cublasLt{kind}GetAttribute")
                    place = ctypes.c_void_p(twins[thing]), number, ctypes.byref(value), c_size_t(ctypes.sizeof(value))
                    assert get(*place, None) == 0
                    assert value.value == attributes[name], (kind, name)
            fake.cublasLtMatmulAlgoGetHeuristic(handle, *rest)

    both = LtMatmul(fresh.cupy, Both())
    for name in ("float64", "float32", "float16"):
        for shapes in (SHAPES["plain"], SHAPES["batched"], SHAPES["one a"]):
            hosts = operands(shapes, name)
            for made in (("contiguous", "transposed"), ("part of columns", "part of rows")):
                a, b = (LAYOUTS[lies](fresh.cupy, host) for lies, host in zip(made, hosts, strict=True))
                agree(both.matmul(a, b), *hosts)
    assert fake.heuristics == 18
    assert len(twins) == 18 * 5


# A GPU


@pytest.fixture
def gpu(cuda):
    return LtMatmul(cuda.cupy, load())


@pytest.mark.cuda
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_results_on_a_gpu(shapes, dtype, gpu):
    hosts = operands(shapes, dtype_named(dtype))
    shape = (*np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2]), shapes[0][-2], shapes[1][-1])
    start = operands([shape], hosts[0].dtype, seed=1)[0]
    for made in product(LAYOUTS.values(), repeat=2):
        a, b = (make(gpu.cupy, host) for make, host in zip(made, hosts, strict=True))
        before = a.get(), b.get()
        agree(gpu.matmul(a, b), *before)
        for lies in ("contiguous", "part of rows", "every second number", "transposed"):
            out = LAYOUTS[lies](gpu.cupy, start)
            agree(gpu.matmul(a, b, out, accumulate=True), *before, start)
            agree(gpu.matmul(a, b, out), *before)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_large_products_on_a_gpu(dtype, gpu):
    """Large enough for algorithms that split sums and use the workspace."""
    for shapes in (((512, 300), (300, 256)), ((64, 8192), (8192, 48)), ((33, 1000), (1000, 7))):
        a, b = operands(shapes, dtype)
        y = gpu.matmul(gpu.cupy.asarray(a), gpu.cupy.asarray(b))
        agree(y, a, b)
        again = gpu.matmul(gpu.cupy.asarray(a), gpu.cupy.asarray(b))
        np.testing.assert_array_equal(y.get(), again.get())


@pytest.mark.cuda
def test_tf32_on_a_gpu(cuda):
    a, b = operands([(256, 512), (512, 256)], np.float32)
    errors = []
    for tf32 in (False, True):
        products = LtMatmul(cuda.cupy, load(), tf32=tf32)
        y = products.matmul(cuda.asarray(a), cuda.asarray(b)).get()
        errors.append(abs(y - a.astype(np.float64) @ b).max() / abs(a @ b).max())
    assert errors[0] < 2e-6
    assert errors[1] < 2e-3


@pytest.mark.cuda
def test_uninitialised_results_on_a_gpu(gpu):
    a = gpu.cupy.ones((64, 64), "float32")
    out = gpu.cupy.full((64, 64), np.nan, "float32")
    gpu.matmul(a, a, out)
    assert (out.get() == 64).all()


@pytest.mark.cuda
def test_capture_on_a_gpu(gpu):
    cupy, (a, b) = gpu.cupy, operands([(64, 48), (48, 40)], np.float32)
    xs, out = [cupy.asarray(x) for x in (a, b)], cupy.zeros((64, 40), "float32")
    gpu.matmul(*xs, out, accumulate=True)
    out.fill(0)
    pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        gpu.matmul(*xs, out, accumulate=True)
        graph = stream.end_capture()
        assert not out.get().any()  # captured, not run
        graph.launch()
        graph.launch()
        stream.synchronize()
    agree(out, a, b, a @ b)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="cannot begin while the stream is captured"):
            gpu.matmul(xs[1].T, xs[0].T)
        stream.end_capture()
