"""What is the compiled kernels' own: when they are made, what they compute exactly, their source."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from kit import beside

from gpunet.formula import classify, column_sum, index, total, trace
from gpunet_backends import blocks
from gpunet_backends.numba_emit import emit
from gpunet_backends.numpy_ import NumpyBackend, has_jit

pytestmark = pytest.mark.skipif(not has_jit(), reason="Numba is not installed, or GPUNET_JIT=0")
formulas = beside(__file__, "../formula/formulas.py")
LAST = {"axis": -1, "keepdims": True}


@pytest.fixture
def numba():
    return NumpyBackend(jit=True)


@pytest.mark.parametrize("two", ["int8", "int32", "int64"])
@pytest.mark.parametrize("one", ["uint8", "int16", "uint32", "int64", "uint64"])
def test_integers_are_compared_exactly(one, two, numba, cpu):
    def compared(xp, x, a, b):
        return xp.where(a == b, 1.0, x) + xp.where(a < b, 2.0, 0.0) + xp.where(a <= 3, 4.0, 0.0)

    a, b = np.array([[0, 3, 2**53 + 1, 2**60 + 1], [0, 4, 2**53, 2**60]])[..., None]
    operands = np.zeros((4, 3)), a.astype(one), b.astype(two)
    assert np.array_equal(numba.fuse(compared)(*operands), cpu.fuse(compared)(*operands))


@pytest.mark.parametrize("k", [1, 2, 8, 37])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_maximum_of_a_row_is_that_of_numpy(dtype, k, numba):
    rng = np.random.default_rng(k)
    special = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e30])
    x = np.where(rng.random((200, k)) < rng.random((200, 1)) ** 3, rng.choice(special, (200, k)), -rng.random((200, k)))
    x = np.concatenate([x, special[:, None] + np.zeros(k)]).astype(dtype)
    assert np.isnan(x).any(axis=1).mean() < 0.9
    largest = numba.fuse(lambda xp, x: xp.max(x, **LAST))(x)
    assert np.array_equal(largest, x.max(axis=1, keepdims=True), equal_nan=True)


def test_infinite_sums_do_not_warn(numba, monkeypatch):
    monkeypatch.setattr(blocks, "row_block", lambda k: 1)
    x = np.full((4, 3), 1.5e308)
    columns, whole, y = numba.fuse(lambda xp, x: (column_sum(x), total(x), 2 * x))(x)
    assert (columns.tolist(), whole, y[0, 0]) == ([np.inf] * 3, np.inf, np.inf)


def test_threads_may_share_a_formula(numba):
    fused, wrong = numba.fuse(lambda xp, x: (2 * x, column_sum(x))), []

    def work(n):
        x = np.ones((n, 3))
        for _ in range(300):
            y, sums = fused(x)
            if y.shape != (n, 3) or y[-1, -1] != 2 or sums.tolist() != [n] * 3:
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in (3, 4, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert wrong == []


def test_nothing_is_traced_or_compiled_again_for_another_batch_size(numba, monkeypatch):
    import numba as library

    from gpunet_backends import numba_build, numba_math  # noqa: F401 - its functions are compiled, too

    njit, traced, compiled = library.njit, [], []
    monkeypatch.setattr(library, "njit", lambda *args, **options: compiled.append(1) or njit(*args, **options))
    monkeypatch.setattr(numba_build, "_kernels", {})
    fused = numba.fuse(lambda xp, x, b: traced.append(1) or (x * b, column_sum(x), xp.max(x, **LAST)))
    for lead in [(2,), (3,), (1,), (5000,), (0,), (2, 7)]:
        y, _, largest = fused(np.ones((*lead, 3)), np.ones(3))
        assert (y.shape, largest.shape) == ((*lead, 3), (*lead, 1))
    fused(np.ones((2, 5)), np.ones(5))
    numba.fuse(fused.formula)(np.ones((4, 3)), np.ones(3))  # another object of the same formula
    assert (len(traced), len(compiled)) == (2, 1)


@pytest.mark.parametrize("shape", [(300, 7), (5, 60, 3), (4001,)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_do_not_depend_on_the_number_of_threads(dtype, shape, numba, monkeypatch):
    def formula(xp, x, b):
        return xp.exp(x + b), total(xp.exp(x + b)), column_sum(xp.tanh(x) * b) if x.kind == "full" else x

    x, b = np.random.default_rng(0).standard_normal(shape).astype(dtype), np.ones((), dtype)
    for name, value in {"PARALLEL_FROM": 1, "FLAT_BLOCK": 100, "row_block": lambda k: 16}.items():
        monkeypatch.setattr(blocks, name, value)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(blocks, "thread_count", lambda threads=threads: threads)
        results.append(numba.fuse(formula)(x, b))
    for more in results[1:]:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(results[0], more, strict=True))


def source(formula, *shapes, mask=False):
    """Of the kernel for float32 operands, the last one a mask or not."""
    types = ("float32",) * (len(shapes) - mask) + ("bool",) * mask
    return emit(trace(formula, classify(shapes, types)), types, (None,), frozenset()).text


def test_a_kernel_is_readable_source():
    text = source(formulas.layernorm, (8, 5), (5,), (5,))
    assert text.startswith('"""layernorm\n\na0  float32, 2 axes, read only\n')
    assert text.count("for i in range(first, last):") == 1
    assert text.count("for j in range(k):") == 3  # the mean, the variance, the result
    assert max(map(len, text.splitlines())) <= 120


def test_one_loop_a_pass():
    assert source(formulas.masked_softmax, (8, 5), (8, 5), mask=True).count("for j in") == 3  # maximum, sum, quotient
    assert source(lambda xp, x: x * 2 + 1, (8, 5)).count("for j in") == 1
    assert source(lambda xp, x: xp.sum(x, **LAST) + xp.max(x, **LAST), (8, 5)).count("for j in") == 1
    assert source(lambda xp, x: xp.where(index(x) > 2, x, 0.0), (8, 5)).count("for j in") == 1
