"""What LtMatmul computes, on a cuBLASLt that works on host memory."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import beside

from gpunet_backends.cublas_lt import LtMatmul

products = beside(__file__, "products.py")
LAYOUTS, ROUNDING, SHAPES = products.LAYOUTS, products.ROUNDING, products.SHAPES
agree, dtype_named, operands = products.agree, products.dtype_named, products.operands


@pytest.fixture(scope="module")
def common() -> LtMatmul:
    return products.opened()


@pytest.fixture
def fresh() -> LtMatmul:
    return products.opened()


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_fresh_results(shapes, dtype, common):
    hosts = operands(shapes, dtype_named(dtype))
    for made in product(LAYOUTS.values(), repeat=2):
        a, b = (make(common.cupy, host) for make, host in zip(made, hosts, strict=True))
        before = a.get(), b.get()
        y = common.matmul(a, b)
        agree(y, *before)
        assert y.flags.c_contiguous
        for x, host in zip((a, b), before, strict=True):
            np.testing.assert_array_equal(x.get(), host)


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("accumulate", [False, True])
def test_results_in_place(shapes, dtype, accumulate, common):
    hosts = operands(shapes, dtype_named(dtype))
    shape = (*np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2]), shapes[0][-2], shapes[1][-1])
    for lies in list(LAYOUTS)[:-2]:
        start = operands([shape], hosts[0].dtype, seed=1)[0]
        out = LAYOUTS[lies](common.cupy, start if accumulate else np.full_like(start, np.nan))
        for made in (LAYOUTS["contiguous"],) * 2, (LAYOUTS["transposed"], LAYOUTS["every second number"]):
            a, b = (make(common.cupy, host) for make, host in zip(made, hosts, strict=True))
            assert common.matmul(a, b, out, accumulate) is out
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
def test_any_layout(common, case, dtype):
    shapes, lies, into = case
    a, b, start = operands(shapes, np.dtype(dtype))
    xs = [lying(common.cupy, x, *how) for x, how in zip((a, b, start), lies, strict=True)]
    if into == "fresh":
        agree(common.matmul(*xs[:2]), a, b)
    else:
        agree(common.matmul(*xs, accumulate=into == "accumulate"), a, b, start if into == "accumulate" else None)
    for x, host in zip(xs, (a, b), strict=False):
        np.testing.assert_array_equal(x.get(), host)
