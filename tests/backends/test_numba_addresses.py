"""The same bits wherever arrays happen to lie in memory: in another process they lie elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from kit import beside

from gpunet_backends import numba_runner
from gpunet_backends.numba_emit import APART
from gpunet_backends.numpy_ import NumpyBackend, has_jit

pytestmark = pytest.mark.skipif(not has_jit(), reason="Numba is not installed, or GPUNET_JIT=0")
library = beside(__file__, "library.py")
SUMS_AND_OUTPUTS = ["BinaryCrossEntropy", "Huber", "KLDivergence", "MeanAbsoluteError", "MeanSquaredError"]


@pytest.mark.parametrize("name", SUMS_AND_OUTPUTS)
@pytest.mark.parametrize("shape", [(32, 10), (7, 3)])
def test_running_sums_do_not_depend_on_where_outputs_lie(name, shape, monkeypatch):
    """Fresh memory right before or behind an operand, where LLVM's vectors would not be used."""
    case = library.CASES[name]
    given = [np.array(x) for x in library.operands(case, "float32", shape, 3, 0.0, [library.aligned])]
    expected = NumpyBackend(jit=True).fuse(case.formula)(*given)
    size, room = given[0].nbytes, 2 * (APART + given[0].size) * 4 + 1024
    arena = np.zeros(2 * room + size + 4096, np.uint8)
    start = -arena.ctypes.data % 64 + room
    for gap in range(0, 300, 12):
        for before in (False, True):
            x = arena[start : start + size].view(np.float32).reshape(shape)
            x[...] = given[0]

            def empty(shape, dtype, gap=gap, before=before):
                nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
                at = start - gap // 4 * 4 - nbytes if before else start + size + gap
                return arena[at : at + nbytes].view(dtype).reshape(shape) if nbytes >= size else np.empty(shape, dtype)

            monkeypatch.setattr(numba_runner, "empty", empty)
            results = NumpyBackend(jit=True).fuse(case.formula)(x, *given[1:])
            assert np.shares_memory(results[1], arena)
            assert all(np.array_equal(a, b) for a, b in zip(results, expected, strict=True)), (gap, before)


def test_scratch_rows_lie_apart(launches):
    """They come from Numba's allocator, beside whatever is there."""
    fused = NumpyBackend(jit=True).fuse(library.CASES["CrossEntropy"].formula)
    fused(np.zeros((4, 3), np.float32), np.zeros((4, 1), np.int32), np.ones((), np.float32))
    assert f"np.empty(k + {2 * APART}, real)[{APART} : {APART} + k]" in launches[-1]
