"""NumPy on the CPU: formulas run as generated straight-line source, a cache-sized block of rows at a time."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np

from gpunet.backend import Array, Shape
from gpunet.errors import DeviceError, FormulaError
from gpunet.formula import Formula, dtype_name
from gpunet_backends.array_api import ArrayAPIBackend, Fused, Layout, layout_of, numpy_type, refuse_count
from gpunet_backends.host import HostMixin
from gpunet_backends.numpy_plan import Compiled, Plan, stores_directly

ALIGNMENT = 256
FEW_ROWS, LARGE = range(4, 33), 1 << 16
"""A product of so few rows with a transposed matrix of at least so many elements is computed as (b aᵀ)ᵀ, since OpenBLAS
rearranges the matrix on the right: 1.8 times as fast for 8 rows, 1.2 for 32, no gain at 128; benchmarks/choices.py."""
SMALL = 4096
"""Elements of a product up to which numpy.dot is faster than numpy.matmul: 0.5 µs less, but it clears ``out``."""
MOST_PLANS = 256
"""Signatures a formula remembers; inputs of ever new shapes would fill the memory."""


class NumpyBackend(HostMixin, ArrayAPIBackend):
    """The CPU. Arrays are numpy.ndarray."""

    def __init__(self, jit: bool = False) -> None:
        self._local, self.jit = _Local(), jit
        super().__init__(np, None, "numpy")
        self.device = "cpu"
        self.detail = f"NumPy {np.__version__}, " + (f"Numba {version('numba')}" if jit else "without Numba")

    def scope(self) -> AbstractContextManager[Any]:
        """Floating-point warnings off, once for many calls: each costs 0.8 µs, a training step has 17."""
        return _Quiet(self._local)

    def is_quiet(self) -> bool:
        """Inside a scope, in this thread?"""
        return self._local.quiet

    def owns(self, x: Any) -> bool:
        """Is x a NumPy array?"""
        return type(x) is np.ndarray

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Host array, number, list, or another library's array on the CPU -> NumPy array; not copied where it fits."""
        if type(x) is np.ndarray and x.dtype.isnative and (dtype is None or dtype_name(x.dtype) == dtype):
            return x
        return self.host_array(x, dtype)

    def to_numpy(self, x: Array) -> Any:
        """The array itself."""
        return x

    def zeros(self, shape: Shape, dtype: str) -> Array:
        """Array of zeros that starts at a multiple of 256 bytes."""
        kind = self.data_type(dtype)
        size = math.prod(shape) * kind.itemsize
        memory = np.zeros(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + size].view(kind).reshape(shape)

    def data_type(self, name: str) -> Any:
        """NumPy's data type of this name."""
        return numpy_type(name)

    def fuse(self, formula: Formula) -> Fused:
        """A formula that becomes a kernel, or NumPy source, on its first call."""
        if self.jit:
            from gpunet_backends.numba_ import NumbaFused

            return NumbaFused(self, formula)
        return NumpyFused(self, formula)

    def gemm(
        self,
        a: Array,
        b: Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        out: Array | None = None,
        accumulate: bool = False,
    ) -> Array:
        """Matrix product of the last two axes, written straight into ``out``."""
        if a.itemsize == 2:
            return super().gemm(a, b, transpose_a=transpose_a, transpose_b=transpose_b, out=out, accumulate=accumulate)
        if a.ndim == b.ndim == 2 and not accumulate:
            a = a.T if transpose_a else a
            if transpose_b and not transpose_a and out is None and b.size >= LARGE and a.shape[0] in FEW_ROWS:
                return np.ascontiguousarray(self._matmul(b, a.T).T)
            b = b.T if transpose_b else b
            if a.shape[0] * b.shape[1] <= SMALL and (out is None or out.flags.c_contiguous):
                return np.dot(a, b, out)
        else:
            a = a.swapaxes(-1, -2) if transpose_a else a
            b = b.swapaxes(-1, -2) if transpose_b else b
        if accumulate and out is not None:
            with self.scope():
                out += np.matmul(a, b)
            return out
        return self._matmul(a, b, out)

    def scatter_add_rows(self, out: Array, index: Array, rows: Array) -> None:
        """By a compiled loop, or by numpy.add.at."""
        index, rows = np.ascontiguousarray(index).reshape(-1), rows.reshape(-1, out.shape[1])
        rows = np.ascontiguousarray(rows, out.dtype)
        if self.jit and out.flags.c_contiguous and out.dtype.kind == "f" and out.itemsize >= 4:
            from gpunet_backends.numba_rows import scatter_add

            scatter_add(out.dtype.name)(out, index, rows)
            return
        known = (index >= 0) & (index < out.shape[0])
        with self.scope():
            np.add.at(out, index[known], rows[known])

    def _matmul(self, a: Array, b: Array, out: Array | None = None) -> Array:
        if self._local.quiet:
            return np.matmul(a, b, out)
        with self.scope():
            return np.matmul(a, b, out)


class _Local(threading.local):
    """Whether this thread is inside a scope."""

    quiet = False


class _Quiet:
    """numpy.errstate that inner calls can see."""

    def __init__(self, local: _Local):
        self._local, self._errors = local, np.errstate(all="ignore")

    def __enter__(self) -> None:
        self._errors.__enter__()
        self._outer = self._local.quiet
        self._local.quiet = True

    def __exit__(self, *error: object) -> None:
        self._local.quiet = self._outer
        self._errors.__exit__(*error)  # type: ignore[arg-type]


class NumpyFused(Fused):
    """Two caches: call signature -> plan, which is cheap; (graph, data type, layout) -> compiled source."""

    backend: NumpyBackend

    def __init__(self, backend: NumpyBackend, formula: Formula):
        super().__init__(backend, formula)
        self._plans: dict[Any, Plan | None] = {}
        self._compiled: dict[Any, Compiled] = {}
        self._last: tuple[Any, Any, Plan | None] = (None, None, None)

    def __call__(self, *operands: Array, out: Any = None) -> Any:
        """Run the plan for these shapes, types and targets; the last one is remembered."""
        signature = [(a.shape, a.dtype) for a in operands]
        targets = out if type(out) is tuple else (out,)
        layout = layout_of(operands, out)
        last = self._last  # read once: another thread may replace it
        if last[0] == signature and last[1] == layout:
            plan = last[2]
        else:
            plan = self._plan(operands, signature, layout)
            self._last = (signature, layout, plan)
        if plan is None:
            return super().__call__(*operands, out=out)
        if out is not None:
            refuse_count(plan.graph, targets)
            refuse_overlap(plan.graph.name, targets, operands, layout)
        if self.backend.is_quiet():
            return plan.run(operands, targets)
        with np.errstate(all="ignore"):
            return plan.run(operands, targets)

    def _plan(self, operands: Sequence[Array], signature: list[Any], layout: list[int | None]) -> Plan | None:
        """The plan for a signature; None where arithmetic and storage differ, which the reference handles."""
        key = (*signature, None, *layout)
        try:
            return self._plans[key]
        except KeyError:
            plan = self._new_plan(operands, tuple(layout))
        if len(self._plans) >= MOST_PLANS:
            self._plans.clear()
        self._plans[key] = plan
        return plan

    def _new_plan(self, operands: Sequence[Array], layout: Layout) -> Plan | None:
        graph, dtype = self.graph(operands), np.dtype(self.float_type(operands))
        if dtype.name not in ("float32", "float64"):
            return None
        outputs = len(graph.outputs)
        places: Layout = layout if len(layout) == outputs else (None,) * outputs
        direct = tuple(p if p is not None and stores_directly(graph, n, p) else None for n, p in enumerate(places))
        key = (graph.key, dtype, direct)
        compiled = self._compiled.get(key)
        if compiled is None:
            compiled = self._compiled[key] = Compiled(graph, direct, dtype)
        return Plan(graph, compiled, [a.shape for a in operands], dtype, places)


def refuse_overlap(
    name: str, targets: Sequence[Array], operands: Sequence[Array], layout: Sequence[int | None]
) -> None:
    """Outputs may replace a whole operand; any other shared memory would be overwritten while it is still read."""
    given = [t for t in targets if t is not None]
    arrays = [*operands, *given]
    owners = [a if a.base is None else a.base for a in arrays]
    known = all(getattr(owner, "base", owner) is None for owner in owners)  # no memory of another library
    for n, (target, place) in enumerate(zip(targets, layout, strict=True)):
        if target is None:
            continue
        if not target.flags.writeable:
            raise FormulaError(f"formula '{name}': an array of `out` is read-only. Pass one that can be written.")
        owner = id(target if target.base is None else target.base)
        if known and sum(id(o) == owner for o in owners) == 1 + (place is not None):
            continue  # the only view of its array
        others = [a for i, a in enumerate(operands) if i != place] + [t for t in targets[:n] if t is not None]
        if any(np.may_share_memory(target, other) for other in others):
            raise FormulaError(
                f"formula '{name}': `out` shares memory with another operand or output. Pass a fresh array, or "
                "the operand itself, once."
            )


def open_reference(device: str | None) -> ArrayAPIBackend:
    """Formulas operation by operation in NumPy, for what others are compared with: "reference"."""
    if device is not None:
        raise DeviceError(f"it has no device '{device}'. Use \"reference\".")
    return ArrayAPIBackend(np, None, "reference")


def open_cpu(device: str | None) -> NumpyBackend:
    """The "cpu" device."""
    if device is not None:
        raise DeviceError(f"there is no 'cpu:{device}'. Use \"cpu\".")
    return NumpyBackend(jit=has_jit())


def has_jit() -> bool:
    """Are the packages of the extra ``jit`` installed, and not turned off by GPUNET_JIT=0?"""
    return os.environ.get("GPUNET_JIT") != "0" and all(find_spec(name) for name in ("numba", "platformdirs"))
