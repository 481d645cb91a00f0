"""What LtMatmul asks of the library and of CuPy: plans, workspaces, copies, capture."""

import gc
import sys
from itertools import product
from types import SimpleNamespace

import fake_cublas_lt
import numpy as np
import pytest
from fake_cublas_lt import FakeCublasLt
from fakegpu import Counts, FakeCupy
from kit import beside

from gpunet_backends import cublas_lt
from gpunet_backends.cublas_lt import LtMatmul

products = beside(__file__, "products.py")
LAYOUTS, SHAPES = products.LAYOUTS, products.SHAPES
agree, operands = products.agree, products.operands


@pytest.fixture
def fresh() -> LtMatmul:
    return products.opened()


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
    for one in (products.opened(), products.opened(tf32=True)):
        y = one.matmul(one.cupy.asarray(a), one.cupy.asarray(b)).get()
        errors.append(abs(y - a.astype(np.float64) @ b).max() / abs(a @ b).max())
    assert errors[0] < 1e-6 < 1e-5 < errors[1] < 1e-2
    assert one.lt.products[0].operation["COMPUTE_TYPE"] == fake_cublas_lt.COMPUTE_32F_FAST_TF32
    for name, compute in (("float64", fake_cublas_lt.COMPUTE_64F), ("float16", fake_cublas_lt.COMPUTE_32F)):
        one.matmul(*(one.cupy.asarray(x) for x in operands([(4, 3), (3, 5)], name)))
        assert one.lt.products[-1].operation["COMPUTE_TYPE"] == compute


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
    one = LtMatmul(cupy, FakeCublasLt(cupy.submit))
    assert one.workspace_bytes == size * 2**20
    assert one.workspaces == {}


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
