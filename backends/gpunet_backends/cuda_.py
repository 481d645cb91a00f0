"""Formulas on a GPU as CUDA kernels: one plan for each call signature."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gpunet.backend import Array
from gpunet.errors import FormulaError
from gpunet.formula import Formula
from gpunet_backends.array_api import Fused, layout_of, refuse_count
from gpunet_backends.cuda_plan import Plan
from gpunet_backends.cuda_variant import BYTES, TYPES

if TYPE_CHECKING:
    from gpunet_backends.cupy_ import CupyBackend

MOST_PLANS = 256
"""Signatures a formula remembers."""


class CudaFused(Fused):
    """One plan for each call signature."""

    backend: CupyBackend

    def __init__(self, backend: CupyBackend, formula: Formula):
        super().__init__(backend, formula)
        self._plans: dict[Any, Plan | None] = {}

    def __call__(self, *operands: Array, out: Any = None) -> Any:
        """Launch the kernels for these shapes, types, memory layouts and targets."""
        targets = out if type(out) is tuple else (out,)
        layout = layout_of(operands, out)
        key = (*map(_signature, operands), None, *map(_signature, targets), *layout)
        with self.backend.device:
            try:
                plan = self._plans[key]
            except KeyError:
                plan = self._new_plan(operands, out, layout)
                if len(self._plans) >= MOST_PLANS:
                    self._plans.clear()
                self._plans[key] = plan
            if plan is None:
                return super().__call__(*operands, out=out)
            if out is None:
                targets = (None,) * len(plan.outputs)
            else:
                refuse_overlap(plan.graph.name, operands, targets, layout)
            return plan.run(operands, targets)

    def _new_plan(self, operands: Sequence[Array], out: Any, layout: Sequence[int | None]) -> Plan | None:
        """A plan; None where nothing is to be computed, no kernel has the types, or the call must be refused."""
        graph, dtype = self.graph(operands), self.float_type(operands)
        full = np.broadcast_shapes(*[a.shape for a in operands])
        if math.prod(full) == 0 or dtype not in BYTES or any(a.dtype.name not in TYPES for a in operands):
            return None
        targets = [None] * len(graph.outputs) if out is None else list(out) if type(out) is tuple else [out]
        refuse_count(graph, targets)
        places = [None] * len(targets) if out is None else layout
        used = [p for p in places if p is not None]
        made = Plan(graph, operands, targets, places, dtype, self.backend.kernels)
        fits = all(t is None or (t.shape, t.dtype.name) == o for t, o in zip(targets, made.outputs, strict=True))
        return made if fits and len(used) == len(set(used)) else None


def _signature(array: Array | None) -> Any:
    return None if array is None else (array.shape, array.strides, array.dtype, array.data.ptr % 16 == 0)


def refuse_overlap(
    name: str, operands: Sequence[Array], targets: Sequence[Array | None], layout: Sequence[int | None]
) -> None:
    """Outputs may replace a whole operand; any other shared memory would be overwritten while it is still read."""
    spans = [_span(a) for a in operands]
    for target, place in zip(targets, layout, strict=True):
        if target is None:
            continue
        start, stop = _span(target)
        if any(start < b and a < stop for i, (a, b) in enumerate(spans) if i != place):
            raise FormulaError(
                f"formula '{name}': `out` shares memory with another operand or output. Pass a fresh array, or "
                "the operand itself, once."
            )
        if place is None:
            spans.append((start, stop))


def _span(array: Array) -> tuple[int, int]:
    """The first byte of an array, and the one behind its last."""
    start = array.data.ptr
    if array.flags.c_contiguous:
        return start, start + array.nbytes
    reach = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
    return start + sum(r for r in reach if r < 0), start + sum(r for r in reach if r > 0) + array.itemsize
