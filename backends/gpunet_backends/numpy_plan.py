"""Plans of the NumPy backend: one formula's generated source, run on one cache-sized block of rows after another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpunet.backend import Array, Shape
from gpunet.errors import FormulaError
from gpunet.formula import Graph
from gpunet_backends.array_api import Layout
from gpunet_backends.numpy_emit import REDUCED, compile_source, emit

BLOCK = 65536
"""Elements of a block. Adam on 537,000 float32 parameters: 4,096 1.29 ms, 16,384 0.73, 32,768 0.64, 65,536 0.65 with
half the calls, 131,072 0.68."""


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
