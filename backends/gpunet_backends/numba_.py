"""Formulas on the CPU as compiled kernels: for each call signature, a small generated function that calls one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunet.backend import Array
from gpunet.formula import Formula, Graph
from gpunet_backends.array_api import layout_of
from gpunet_backends.numba_runner import Run, Runner
from gpunet_backends.numpy_ import MOST_PLANS, NumpyBackend, NumpyFused


class NumbaFused(NumpyFused):
    """The last runner is tried first; it checks the call itself. Others are found by the whole signature."""

    def __init__(self, backend: NumpyBackend, formula: Formula):
        super().__init__(backend, formula)
        self._runs: dict[Any, Run | None] = {}
        self._run: Run = _always_miss

    def __call__(self, *operands: Array, out: Any = None) -> Any:
        """Run the kernel for these shapes, types, memory layouts and targets."""
        return self._run(operands, out, self._look_up)

    def _look_up(self, operands: Sequence[Array], out: Any) -> Any:
        layout = layout_of(operands, out)
        targets = out if type(out) is tuple else (out,)
        given = tuple([None if t is None else (t.shape, t.strides, t.dtype) for t in targets])
        key = (*[(a.shape, a.strides, a.dtype) for a in operands], type(out), given, *layout)
        try:
            run = self._runs[key]
        except KeyError:
            run = self._new_run(operands, out, layout)
            if len(self._runs) >= MOST_PLANS:
                self._runs.clear()
            self._runs[key] = run
        if run is None:
            return self._plain(operands, out)
        self._run = run
        return run(operands, out, self._plain)

    def _plain(self, operands: Sequence[Array], out: Any) -> Any:
        return super().__call__(*operands, out=out)

    def _new_run(self, operands: Sequence[Array], out: Any, layout: Sequence[int | None]) -> Run | None:
        """A runner; None where there is nothing to gain, or the plain way must refuse the call."""
        graph, dtype = self.graph(operands), self.float_type(operands)
        full = np.broadcast_shapes(*[a.shape for a in operands])
        targets = [None] * len(graph.outputs) if out is None else list(out) if type(out) is tuple else [out]
        varies = any(n.kind in ("full", "row") for n in graph.nodes)
        native = all(a.dtype.isnative and a.dtype.kind in "fiub" for a in operands)
        native = native and not any(a.dtype == np.uint64 for a in operands)  # Numba compares them as float64
        writeable = all(t is None or t.flags.writeable for t in targets)
        places = [p for p in layout if p is not None]
        if dtype not in ("float32", "float64") or not varies or not native or not full or math.prod(full) == 0:
            return None
        if not writeable or len(places) != len(set(places)):
            return None
        if len(targets) != len(graph.outputs) or any(graph.nodes[o].kind == "col" for o in _stored(graph)):
            return None
        return Runner(graph, dtype, full, operands, targets, layout, out).compiled()


def _always_miss(operands: Sequence[Array], out: Any, miss: Callable[..., Any]) -> Any:
    return miss(operands, out)


def _stored(graph: Graph) -> list[int]:
    return [o for o in graph.outputs if graph.nodes[o].op not in ("column_sum", "total")]
