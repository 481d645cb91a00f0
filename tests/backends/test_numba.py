"""The runners of compiled kernels: whatever call comes after whatever other, it gives what plain NumPy gives."""

from __future__ import annotations

import pickle
import random

import numpy as np
import pytest

from gpunet.formula import column_sum, total
from gpunet_backends import blocks, numba_
from gpunet_backends.numpy_ import NumpyBackend, has_jit

pytestmark = pytest.mark.skipif(not has_jit(), reason="Numba is not installed, or GPUNET_JIT=0")
LAST = {"axis": -1, "keepdims": True}


def everything(xp, x, b):
    """Of each kind of result one; of whole numbers exact in every order."""
    return x * b + 1, xp.sum(x, **LAST), column_sum(x * b), total(x + b), x > b


def twice(xp, x):
    return 2 * x


@pytest.fixture
def numba():
    return NumpyBackend(jit=True)


def numbers(*shape, dtype="float64"):
    return np.asarray(np.arange(np.prod(shape)).reshape(shape) % 7 - 3, dtype)


def laid(x, layout):
    """The same values lying otherwise in memory."""
    if layout == "unaligned":
        y = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    elif layout == "slice of rows":
        y = np.empty((*x.shape[:-1], x.shape[-1] + 4), x.dtype)[..., 2:-2]
    elif layout == "steps":
        y = np.empty((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)[..., ::2]
    elif layout == "reversed":
        y = np.empty(x.shape, x.dtype)[::-1, ...]
    elif layout == "fortran":
        y = np.empty(x.shape, x.dtype, order="F")
    else:
        y = np.empty(x.shape, x.dtype.newbyteorder() if layout == "other byte order" else x.dtype)
    y[...] = x
    y.flags.writeable = layout != "read only"
    return y


LAYOUTS = ["plain", "slice of rows", "steps", "reversed", "fortran", "unaligned", "read only", "other byte order"]
TARGETS = ["fresh", "plain", "every second", "in place", "steps", "fortran", "unaligned"]
SHAPES = [(4, 3), (9, 3), (1, 3), (3,), (2, 3, 3), (0, 3), (70, 3), (4, 1), (1, 1)]


def call(fused, x, b, layout, target):
    """Results for x in a layout; they stand in the targets, if there are some."""
    out, full, lead, k = None, x.shape, x.shape[:-1], x.shape[-1:]
    if target == "in place":
        layout = "plain" if layout in ("read only", "other byte order") else layout
    x = laid(x, layout)
    if target == "in place":
        out = (x, None, None, None, None)
    elif target != "fresh":
        made = [np.zeros(s, b.dtype.name) for s in (full, (*lead, 1), k, ())] + [np.zeros(full, bool)]
        out = tuple(laid(o, target) if o.ndim else o for o in made)
        if target == "every second":
            out = tuple(o if n % 2 else None for n, o in enumerate(out))
    results = fused(x, b, out=out)
    assert all(o is None or r is o for r, o in zip(results, out or results, strict=True))
    return results


@pytest.mark.parametrize("remembered", [3, 256])
@pytest.mark.parametrize("seed", range(4))
def test_calls_of_any_kind_in_any_order(seed, remembered, numba, cpu, monkeypatch):
    monkeypatch.setattr(numba_, "MOST_PLANS", remembered)
    compiled, plain, r = numba.fuse(everything), cpu.fuse(everything), random.Random(seed)
    now = {"dtype": "float64", "shape": (4, 3), "layout": "plain", "target": "fresh", "bias": "plain"}
    choices = {"dtype": ["float32", "float64", "float16"], "shape": SHAPES, "layout": LAYOUTS, "target": TARGETS}
    choices["bias"] = ["plain", "steps"]
    for _ in range(300):
        changed = r.choice(list(now))  # one thing changes, the rest stays
        now[changed] = r.choice(choices[changed])
        x, b = numbers(*now["shape"], dtype=now["dtype"]), numbers(now["shape"][-1], dtype=now["dtype"])
        arguments = x, laid(b, now["bias"]), now["layout"], now["target"]
        for got, wanted in zip(call(compiled, *arguments), call(plain, *arguments), strict=True):
            assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype), now
            assert np.array_equal(got, wanted), now


def test_another_byte_order_after_a_signature_that_is_equal_otherwise(numba):
    x, fused = np.ones((2, 3)), numba.fuse(twice)
    for layout in ("unaligned", "read only"):
        fused(laid(x, layout))
        fused(x)
    for writeable in (True, False):
        swapped = x.astype(">f8")
        swapped.flags.writeable = writeable
        assert np.array_equal(fused(swapped), 2 * x), f"writeable={writeable}"


def test_equal_data_types_that_are_other_objects_run_the_same_kernel(numba, launches):
    x, fused = np.ones((2, 3)), numba.fuse(twice)
    unpickled = pickle.loads(pickle.dumps(x))
    assert unpickled.dtype is not x.dtype
    for n, (array, target) in enumerate(
        [(unpickled, None), (x, None), (x, unpickled), (x, x.copy()), (unpickled, None)]
    ):
        fused(array, out=target)
        assert len(launches) == n + 1


@pytest.mark.parametrize("shape", [(6,), (4, 3), (2, 3, 4)])
@pytest.mark.parametrize("layout", LAYOUTS[:6])
def test_a_target_may_lie_anywhere(layout, shape, numba):
    x, fused = numbers(*shape), numba.fuse(twice)
    for _ in range(2):  # by a new runner, and by the remembered one
        target = laid(np.zeros(shape), layout)
        assert fused(x, out=target) is target
        assert np.array_equal(target, 2 * x)
        own = laid(x, layout)
        assert fused(own, out=own) is own
        assert np.array_equal(own, 2 * x)


def test_the_same_signature_with_another_target(numba):
    x, fused = numbers(4, 3), numba.fuse(twice)
    given, replaced = np.zeros((4, 3)), x.copy()
    for _ in range(2):
        assert fused(x, out=given) is given
        assert fused(x) is not given
        assert fused(replaced, out=(replaced,)) is replaced
        assert fused(x, out=(None,)) is not x
    assert np.array_equal(given, 2 * x)
    assert np.array_equal(replaced, 4 * x)


def test_two_outputs_may_change_places(numba):
    x, y = numbers(4, 3), 10 * numbers(4, 3)
    old_x, old_y = x.copy(), y.copy()
    for _ in range(3):
        numba.fuse(lambda xp, x, y: (y, x + y))(x, y, out=(x, y))
        old_x, old_y = old_y, old_x + old_y
        assert np.array_equal(x, old_x)
        assert np.array_equal(y, old_y)


def test_a_sum_may_replace_what_is_read_to_the_end(numba, monkeypatch):
    monkeypatch.setattr(blocks, "row_block", lambda k: 2)
    b, step = np.arange(3.0), np.asarray(2.0)
    out = numba.fuse(lambda xp, x, b, step: (column_sum(x * b * step), total(x * b * step)))(
        np.ones((8, 3)), b, step, out=(b, step)
    )
    assert out[0] is b
    assert out[1] is step
    assert (b.tolist(), step) == ([0, 16, 32], 48)


@pytest.mark.parametrize("target", TARGETS)
def test_zero_rows_give_zero_sums(target, numba):
    fused = numba.fuse(everything)
    for x in (np.ones((2, 3)), np.zeros((0, 3)), np.ones((2, 3)), np.zeros((4, 0, 3))):
        y, rows, columns, whole, positive = call(fused, x, np.ones(3), "plain", target)
        assert (y.shape, rows.shape, positive.shape) == (x.shape, (*x.shape[:-1], 1), x.shape)
        assert columns.tolist() == [x.size // 3] * 3
        assert whole == 2 * x.size


def test_an_output_of_booleans_may_replace_booleans(numba):
    x, flags = numbers(4, 3), np.ones((4, 3), bool)
    fused = numba.fuse(lambda xp, x, flags: (xp.isnan(x) | (flags & (x > 0)), x))
    for _ in range(2):
        assert fused(x, flags, out=(flags, None))[0] is flags
        assert np.array_equal(flags, x > 0)


def test_half_precision_is_computed_wide(numba):
    x = np.full((1, 4), 300, np.float16)
    fused = numba.fuse(lambda xp, x: x * x / 300)  # 90,000 overflows in float16
    for dtype in ("float32", "float16", "float64", "float16"):
        y = fused(x.astype(dtype))
        assert y.dtype == dtype
        assert y.tolist() == [[300] * 4]


def test_scalars_alone(numba):
    fused, a = numba.fuse(lambda xp, a, b: (a + b, xp.sqrt(a))), np.asarray(4.0)
    added, root = fused(a, np.asarray(5.0))
    assert (added.shape, root.shape, float(added), float(root)) == ((), (), 9, 2)
    assert fused(a, np.asarray(5.0), out=(a, None))[0] is a
    assert a == 9
