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
from gpunet.formula import Formula, Graph, dtype_name
from gpunet_backends.array_api import ArrayAPIBackend, Fused, layout_of, refuse_count
from gpunet_backends.host import HostMixin
from gpunet_backends.numpy_emit import REDUCED, compile_source, emit

BLOCK = 65536
"""Elements of a block. Adam on 537,000 float32 parameters: 4,096 1.29 ms, 16,384 0.73, 32,768 0.64, 65,536 0.65 with
half the calls, 131,072 0.68."""
ALIGNMENT = 256
MOST_PLANS = 256
"""Signatures a formula remembers; inputs of ever new shapes would fill the memory."""

Layout = tuple[int | None, ...]
"""For each output: the operand it is stored into, or None."""


class NumpyBackend(HostMixin, ArrayAPIBackend):
    """The CPU. Arrays are numpy.ndarray."""

    def __init__(self, jit: bool = False) -> None:
        self._local, self.jit = threading.local(), jit
        super().__init__(np, None, "numpy")
        self.device = "cpu"
        self.detail = f"NumPy {np.__version__}, " + (f"Numba {version('numba')}" if jit else "without Numba")

    def scope(self) -> AbstractContextManager[Any]:
        """Floating-point warnings off, once for many calls: each costs 0.8 µs, a training step has 17."""
        return _Quiet(self._local)

    def is_quiet(self) -> bool:
        """Inside a scope, in this thread?"""
        return getattr(self._local, "quiet", False)

    def owns(self, x: Any) -> bool:
        """Is x a NumPy array?"""
        return type(x) is np.ndarray

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Host array, number or list -> NumPy array; not copied if it is one already."""
        if type(x) is np.ndarray and (dtype is None or dtype_name(x.dtype) == dtype):
            return x
        return self.host_array(x, dtype)

    def to_numpy(self, x: Array) -> Any:
        """The array itself."""
        return x

    def zeros(self, shape: Shape, dtype: str) -> Array:
        """Array of zeros that starts at a multiple of 256 bytes."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = np.zeros(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + size].view(dtype).reshape(shape)

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
        if a.ndim == b.ndim == 2 and not accumulate and (out is None or out.flags.c_contiguous):
            return np.dot(
                a.T if transpose_a else a, b.T if transpose_b else b, out
            )  # half of matmul's 1 µs; no warnings
        a = a.swapaxes(-1, -2) if transpose_a else a
        b = b.swapaxes(-1, -2) if transpose_b else b
        if not self.is_quiet():
            with self.scope():
                return self.gemm(a, b, out=out, accumulate=accumulate)
        if accumulate and out is not None:
            out += np.matmul(a, b)
            return out
        return np.matmul(a, b, out)


class _Quiet:
    """numpy.errstate that inner calls can see."""

    def __init__(self, local: threading.local):
        self._local, self._errors = local, np.errstate(all="ignore")

    def __enter__(self) -> None:
        self._errors.__enter__()
        self._outer = getattr(self._local, "quiet", False)
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


class Compiled:
    """The functions generated for a graph; they serve every shape."""

    def __init__(self, graph: Graph, layout: Layout, dtype: np.dtype[Any]):
        source = emit(graph, layout)
        self.body = compile_source(source.body, graph.name, dtype)
        self.scalars = compile_source(source.scalars, graph.name, dtype) if source.scalars else None
        self.rows, self.layout = source.rows, layout


class Plan:
    """How one formula runs on operands of given shapes: which operands are cut into blocks, and how large those are."""

    def __init__(self, graph: Graph, compiled: Compiled, shapes: list[Shape], dtype: np.dtype[Any], layout: Layout):
        self.graph, self.body, self.scalars = graph, compiled.body, compiled.scalars
        full = np.broadcast_shapes(*shapes)
        sizes = {"full": full, "row": (*full[:-1], 1), "col": full[-1:], "scalar": ()}
        self.views = [(i, sizes[o.kind]) for i, o in enumerate(graph.operands) if o and shapes[i] != sizes[o.kind]]
        nodes = [graph.nodes[o] for o in graph.outputs]
        self.replacing = [i for i, place in enumerate(layout) if place is not None and compiled.layout[i] is None]
        self.outputs = [(sizes[n.kind], np.dtype(bool) if n.dtype == "bool" else dtype) for n in nodes]
        self.reduced = [i for i, n in enumerate(nodes) if n.op in REDUCED]

        self.shape, self.count, self.inner = full, full[0] if full else 1, math.prod(full[1:])
        along_rows = len(full) > 1 or not any(
            n.op in ("sum", "max", "mean", "index", "column_sum") for n in graph.nodes
        )
        self.step = max(1, BLOCK // max(1, self.inner)) if along_rows else max(1, self.count)
        ends = [(i, min(i + self.step, self.count)) for i in range(0, self.count, self.step)]
        self.blocks = [(slice(i, j), (j - i, *full[1:]), i * self.inner) for i, j in ends]
        k = full[-1] if full else 1
        self.index = np.arange(k, dtype=np.int32)
        self.rows = tuple(np.full(k, value, dtype) if len(full) > 1 else value for value in compiled.rows)
        kinds = [o.kind if o else "scalar" for o in graph.operands]
        kinds += [n.kind if place is None else "scalar" for n, place in zip(nodes, compiled.layout, strict=True)]
        self.cut = [i for i, kind in enumerate(kinds) if kind in ("full", "row")]

    def run(self, operands: Sequence[Array], targets: Sequence[Array]) -> Any:
        """Compute all outputs into the targets, or into fresh arrays."""
        arrays = list(operands)
        for i, shape in self.views:
            a = arrays[i]
            arrays[i] = a.reshape(shape) if a.size == math.prod(shape) else np.broadcast_to(a, shape)
        outputs = []
        for n, (shape, dtype) in enumerate(self.outputs):
            target = targets[n] if n < len(targets) else None
            if target is None:
                target = np.empty(shape, dtype)
            elif target.shape != shape or target.dtype != dtype:
                raise FormulaError(
                    f"formula '{self.graph.name}' gives an output of shape {shape} and type {dtype}, but `out` has "
                    f"{target.shape} and {target.dtype}. Pass an array of the output's own shape and type."
                )
            outputs.append(target)
        for n in self.replacing:  # stored after the last block has read the operand
            outputs[n] = np.empty_like(outputs[n])
        fixed = self.rows if self.scalars is None else self.scalars(*arrays) + self.rows
        if self.count == 0:
            for n in self.reduced:
                outputs[n][...] = 0
        elif self.count <= self.step:
            self.body(*arrays, *outputs, self.shape, self.index, 0, *fixed)
        else:
            self._run_blocks(arrays + outputs, outputs, fixed)
        for n in self.replacing:
            targets[n][...] = outputs[n]
            outputs[n] = targets[n]
        return outputs[0] if self.graph.single else tuple(outputs)

    def _run_blocks(self, arguments: list[Array], outputs: list[Array], fixed: tuple[Any, ...]) -> None:
        """Block after block; sums go through one partial result per block: their order depends on shapes alone."""
        first_output = len(arguments) - len(outputs)
        partial = {n: np.empty((len(self.blocks), *outputs[n].shape), outputs[n].dtype) for n in self.reduced}
        parts = list(arguments)
        for block, (rows, shape, first) in enumerate(self.blocks):
            for i in self.cut:
                parts[i] = arguments[i][rows]
            for n, sums in partial.items():
                parts[first_output + n] = sums[block, ...]
            self.body(*parts, shape, self.index, first, *fixed)
        for n, sums in partial.items():
            np.add.reduce(sums, axis=0, out=outputs[n])


def stores_directly(graph: Graph, output: int, operand: int) -> bool:
    """May the output be written over the operand block by block? Not a sum: later blocks read the operand."""
    node, replaced = graph.nodes[graph.outputs[output]], graph.operands[operand]
    return node.op not in REDUCED and replaced is not None and replaced.kind == node.kind


def refuse_overlap(
    name: str, targets: Sequence[Array], operands: Sequence[Array], layout: Sequence[int | None]
) -> None:
    """Outputs may replace a whole operand; any other shared memory would be overwritten while it is still read."""
    owners = [id(a if a.base is None else a.base) for a in operands]
    for n, (target, place) in enumerate(zip(targets, layout, strict=True)):
        if target is None:
            continue
        owner = id(target if target.base is None else target.base)
        if owners.count(owner) > (place is not None):  # views of one array: do they meet?
            others = [a for i, a in enumerate(operands) if i != place] + [t for t in targets[:n] if t is not None]
            if any(np.may_share_memory(target, other) for other in others):
                raise FormulaError(
                    f"formula '{name}': `out` shares memory with another operand or output. Pass a fresh array, or "
                    "the operand itself, once."
                )
        if place is None:
            owners.append(owner)


def open_cpu(device: str | None) -> NumpyBackend:
    """The "cpu" device."""
    if device is not None:
        raise DeviceError(f"there is no 'cpu:{device}'. Use \"cpu\".")
    return NumpyBackend(jit=has_jit())


def has_jit() -> bool:
    """Are the packages of the extra ``jit`` installed, and not turned off by GPUNET_JIT=0?"""
    return os.environ.get("GPUNET_JIT") != "0" and all(find_spec(name) for name in ("numba", "platformdirs"))
