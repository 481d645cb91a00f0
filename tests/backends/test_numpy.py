"""What is the NumPy backend's own: blocks, in-place results, refusals, the generated source."""

from __future__ import annotations

import numpy as np
import pytest
from kit import error

from gpunet.errors import ArrayError, FormulaError
from gpunet.formula import column_sum, total
from gpunet_backends import numpy_plan

LAST = {"axis": -1, "keepdims": True}


def statistics(xp, x, b):
    y = (x - xp.mean(x, **LAST)) * b
    return y, xp.max(x, **LAST), column_sum(y * y), total(y)


@pytest.mark.parametrize("block", [1, 7, 64, 10**9])
@pytest.mark.parametrize("shape", [(37, 5), (9, 4, 5), (1, 5), (3, 1)])
def test_blocks_do_not_change_results(block, shape, cpu, monkeypatch):
    x, b = np.random.default_rng(0).standard_normal(shape), np.linspace(1, 2, shape[-1])
    whole = cpu.fuse(statistics)(x, b)
    monkeypatch.setattr(numpy_plan, "BLOCK", block)
    for part, expected in zip(cpu.fuse(statistics)(x, b), whole, strict=True):
        assert error(part, expected) <= 1e-14


@pytest.mark.parametrize("block", [1, 4, 10**9])
def test_flat_arrays_run_in_blocks(block, cpu, monkeypatch):
    monkeypatch.setattr(numpy_plan, "BLOCK", block)
    p, g = np.arange(10.0), np.ones(10)
    result = cpu.fuse(lambda xp, p, g, lr: (p - lr * g, total(g)))(p, g, np.asarray(0.5), out=(p, None))
    assert result[0] is p
    assert p.tolist() == [i - 0.5 for i in range(10)]
    assert result[1] == 10


def test_an_output_may_replace_an_operand_that_is_read_later(cpu):
    x, y = np.array([[1.0, 2.0]]), np.array([[10.0, 20.0]])
    swapped = cpu.fuse(lambda xp, x, y: (y * 1, x * 1))(x, y, out=(x, y))
    assert swapped[0] is x
    assert x.tolist() == [[10, 20]]
    assert y.tolist() == [[1, 2]]


@pytest.mark.parametrize("block", [1, 10**9])
def test_an_output_may_be_an_operand_that_another_output_replaces(block, cpu, monkeypatch):
    monkeypatch.setattr(numpy_plan, "BLOCK", block)
    x, y = np.array([[1.0], [2.0]]), np.array([[10.0], [20.0]])
    more, kept = cpu.fuse(lambda xp, x: (x + 1, x))(x, out=(x, None))
    assert (more.ravel().tolist(), kept.ravel().tolist()) == ([2, 3], [1, 2])
    cpu.fuse(lambda xp, x, y: (y, x))(x, y, out=(x, y))
    assert (x.ravel().tolist(), y.ravel().tolist()) == ([10, 20], [2, 3])


def test_a_sum_may_replace_an_operand_that_other_blocks_read(cpu, monkeypatch):
    monkeypatch.setattr(numpy_plan, "BLOCK", 4)
    b = np.arange(3.0)
    assert cpu.fuse(lambda xp, x, b: column_sum(x * b))(np.ones((8, 3)), b, out=b) is b
    assert b.tolist() == [0, 8, 16]


def test_a_number_made_of_a_column(backend):
    x, b = backend.asarray(np.ones((2, 3))), backend.asarray(np.arange(3.0))
    y = backend.fuse(lambda xp, x, b: x * (xp.sum(b, **LAST) * 2.0))(x, b)
    assert backend.to_numpy(y).tolist() == [[6] * 3] * 2


def test_out_has_an_entry_for_each_output(backend):
    x = backend.zeros((2, 3), "float64")
    for out in ((backend.zeros((2, 3), "float64"),), backend.zeros((2, 3), "float64"), (None,)):
        with pytest.raises(FormulaError, match="has 2 outputs, but `out` has 1 entries"):
            backend.fuse(lambda xp, x: (x + 1, x + 2))(x, out=out)


def test_outputs_are_fresh(cpu):
    x = np.ones((2, 3))
    a, b = cpu.fuse(lambda xp, x: (x, x))(x)
    assert not np.shares_memory(a, x)
    assert not np.shares_memory(a, b)


def test_partial_overlap_is_refused(cpu):
    flat = np.ones(12)
    x, shifted = flat[:6].reshape(2, 3), flat[3:9].reshape(2, 3)
    fused = cpu.fuse(lambda xp, x: x + 1)
    with pytest.raises(FormulaError, match="shares memory with another operand"):
        fused(x, out=shifted)
    with pytest.raises(FormulaError, match="shares memory with another operand"):
        cpu.fuse(lambda xp, x, y: x + y)(x, x, out=x)
    with pytest.raises(FormulaError, match="shares memory with another operand or output"):
        cpu.fuse(lambda xp, x: (x + 1, x + 2))(x, out=(flat[6:].reshape(2, 3), flat[6:].reshape(2, 3)))
    assert flat.tolist() == [1] * 12, "refused only after something was written"
    assert fused(x, out=flat[6:].reshape(2, 3)).tolist() == [[2] * 3] * 2  # apart: accepted


def test_an_output_of_another_shape_or_type_is_refused(cpu):
    fused = cpu.fuse(lambda xp, x: x + 1)
    with pytest.raises(FormulaError, match=r"output of shape \(2, 3\) and type float64, but `out` has \(3, 2\)"):
        fused(np.ones((2, 3)), out=np.ones((3, 2)))
    with pytest.raises(FormulaError, match=r"float64, but `out` has .* and float32"):
        fused(np.ones((2, 3)), out=np.ones((2, 3), np.float32))


def test_operands_of_two_float_types_are_refused(backend):
    with pytest.raises(FormulaError, match="needs operands of one float type, got float32 and float64"):
        backend.fuse(lambda xp, x, y: x + y)(backend.zeros((2,), "float32"), backend.zeros((2,), "float64"))
    with pytest.raises(FormulaError, match="needs operands of one float type, got none"):
        backend.fuse(lambda xp, x: x > 0)(backend.zeros((2,), "int32"))


def test_half_precision_is_stored_narrow_and_computed_wide(cpu):
    x = np.full((1, 4), 300, np.float16)
    y = cpu.fuse(lambda xp, x: x * x / 300)(x)  # 90,000 overflows in float16
    assert y.dtype == np.float16
    assert y.tolist() == [[300] * 4]


def test_nothing_is_traced_again_for_another_batch_size(cpu):
    calls = []
    fused = cpu.fuse(lambda xp, x: calls.append(1) or x * 2)
    for n in (2, 3, 1, 50_000, 0):
        assert fused(np.ones((n, 3))).shape == (n, 3)
    assert len(calls) == 1


def test_zeros_are_aligned(cpu):
    for n in (1, 100, 10**6):
        assert cpu.zeros((n,), "float32").ctypes.data % 256 == 0


def test_zero_rows_give_zero_sums(backend):
    x, b = backend.zeros((0, 3), "float64"), backend.zeros((3,), "float64")
    y, largest, columns, whole = (backend.to_numpy(r) for r in backend.fuse(statistics)(x, b))
    assert y.shape == (0, 3)
    assert largest.shape == (0, 1)
    assert columns.tolist() == [0, 0, 0]
    assert whole == 0


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("lead", [(), (3,)])
def test_gemm(transpose_a, transpose_b, lead, backend):
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((*lead, 4, 2)), rng.standard_normal((*lead, 2, 5))
    expected = np.einsum("...ij,...jk->...ik", a, b)
    a = np.swapaxes(a, -1, -2).copy() if transpose_a else a
    b = np.swapaxes(b, -1, -2).copy() if transpose_b else b
    a, b, flags = backend.asarray(a), backend.asarray(b), {"transpose_a": transpose_a, "transpose_b": transpose_b}
    assert error(backend.to_numpy(backend.gemm(a, b, **flags)), expected) <= 1e-14
    out = backend.zeros((*lead, 4, 5), "float64")
    for times in (1, 2, 3):
        returned = backend.gemm(a, b, **flags, out=out, accumulate=times > 1)
        assert returned is out
        assert error(backend.to_numpy(out), times * expected) <= 1e-14
    backend.gemm(a, b, **flags, out=out)
    assert error(backend.to_numpy(out), expected) <= 1e-14


def test_moving_data(backend):
    host = np.arange(6, dtype=np.int32).reshape(2, 3)
    own = backend.asarray(host)
    assert backend.owns(own)
    assert not backend.owns(object())
    assert np.array_equal(backend.to_numpy(own), host)
    assert backend.to_numpy(backend.asarray(own, "float32")).dtype == np.float32
    assert backend.to_numpy(backend.asarray([[1.5, 2.5]], "float64")).tolist() == [[1.5, 2.5]]
    assert backend.to_numpy(backend.zeros((2,), "float64")).tolist() == [0, 0]
    assert tuple(backend.empty((2, 3), "float32").shape) == (2, 3)
    three = backend.to_numpy(backend.scalar(3, "int64"))
    assert (three.shape, three.dtype, int(three)) == ((), np.int64, 3)
    backend.synchronize()
    with pytest.raises(ArrayError, match=r"takes NumPy arrays, .* but got a builtins\.object\. Convert it with numpy"):
        backend.asarray(object())
