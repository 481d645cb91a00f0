"""Plans: how one call signature becomes launches of CUDA kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from gpunet.backend import Array, Shape
from gpunet.formula import Graph, Node
from gpunet.formula.shapes import REDUCED, WIDE, arithmetic
from gpunet_backends.cuda_emit import BLOCK, COLUMN_BLOCK, LANES, CudaSource
from gpunet_backends.cuda_kernels import Kernels
from gpunet_backends.cuda_stages import Stage, stages
from gpunet_backends.cuda_variant import BYTES, Variant
from gpunet_backends.schedule import is_flat

ALIGNMENT = 16
"""Bytes that a thread reads at once. Arrays that begin elsewhere are copied: so sums have the same order for all."""
MOST_BLOCKS = 2048
"""Blocks of a map; a thread takes more than one step where that is not enough."""
MOST_BANDS, LEAST_BAND = 128, 256
"""Bands of rows that are summed on their own: so many at most, of so many rows at least."""
LARGE = 1 << 31
"""Elements from which on a kernel counts in 64 bits."""


@dataclass(frozen=True)
class Launch:
    """A kernel, its grid, and what it gets: places among the arrays of a call, then numbers."""

    function: Any
    grid: tuple[int, ...]
    block: tuple[int, ...]
    places: tuple[int, ...]
    numbers: tuple[Any, ...]


class Plan:
    """Launches for one call signature. The arrays of a call are its operands, its outputs, then temporary ones."""

    def __init__(
        self,
        graph: Graph,
        operands: Sequence[Array],
        targets: Sequence[Array | None],
        layout: Sequence[int | None],
        dtype: str,
        kernels: Kernels,
    ):
        self.graph, self.dtype, self.real, self.cupy = graph, dtype, arithmetic(dtype), kernels.cupy
        self.full = np.broadcast_shapes(*[a.shape for a in operands])
        self.k = self.full[-1] if self.full else 1
        self.elements = math.prod(self.full)
        self.rows = self.elements // self.k
        self.shapes = {"full": self.full, "row": (*self.full[:-1], 1), "col": self.full[-1:], "scalar": ()}
        outputs = [graph.nodes[o] for o in graph.outputs]
        self.outputs = [(self.shapes[n.kind], self.output_type(n)) for n in outputs]
        self.direct = [self.place_directly(n, operands, layout) for n in range(len(outputs))]
        self.into_target = [t is not None and p is None and is_ready(t) for t, p in zip(targets, layout, strict=True)]
        self.strides = {i: s for i, a in enumerate(operands) if (s := self.row_stride(i, a)) is not None}
        self.copies = [i for i, a in enumerate(operands) if i in graph.used and self.must_copy(i, a)]
        self.types = tuple(a.dtype.name for a in operands)
        self.temporary: list[tuple[Shape, str]] = []
        self.launches: list[Launch] = []
        made = stages(graph)
        handed = [n for stage in made for n in stage.outputs if n >= stage.own]
        self.temporary += [((self.rows,), self.real)] * len(handed)
        for stage in made:
            self.add(stage, kernels)

    def output_type(self, node: Node) -> str:
        """Data type of an output: sums over rows keep the arithmetic's."""
        return "bool" if node.dtype == "bool" else self.real if node.op in REDUCED else self.dtype

    # ---- which way each array goes

    def place_directly(self, n: int, operands: Sequence[Array], layout: Sequence[int | None]) -> int | None:
        """The operand that the kernel itself may overwrite with output n; else the result is copied there."""
        place, node = layout[n], self.graph.nodes[self.graph.outputs[n]]
        if place is None or node.op in ("column_sum", "total"):
            return None
        operand, array = self.graph.operands[place], operands[place]
        alone = node.kind == "full" or not self.full  # a row's value is still read by other threads
        fits = operand is not None and operand.kind == node.kind and array.shape == self.shapes[node.kind]
        return place if alone and fits and is_ready(array) and array.dtype == self.outputs[n][1] else None

    def row_stride(self, i: int, array: Array) -> int | None:
        """Elements from row to row, if rows are whole and evenly spaced but not one behind the other."""
        operand, size = self.graph.operands[i], array.itemsize
        if operand is None or operand.kind != "full" or i in self.direct or array.flags.c_contiguous:
            return None
        shape, steps = array.shape, array.strides
        if shape != self.full or (steps[-1] != size and self.k > 1) or array.data.ptr % ALIGNMENT:
            return None
        lead = [(n, s) for n, s in zip(shape[:-1], steps[:-1], strict=True) if n > 1]
        even = all(outer == inner * n for (_, outer), (n, inner) in pairwise(lead))
        if not even or not lead or any(s < 0 or s % size for _, s in lead):
            return None
        stride = int(lead[-1][1] // size)
        return None if stride % self.row_vector() else stride

    def row_vector(self) -> int:
        """Elements of a row that a thread reads at once. By k and the type alone: so sums have one order."""
        vector = ALIGNMENT // BYTES[self.dtype]
        return 1 if self.k % vector else vector

    def must_copy(self, i: int, array: Array) -> bool:
        """Does the kernel need the operand elsewhere, or in another layout?"""
        operand = self.graph.operands[i]
        assert operand is not None  # it is used
        whole = array.size == math.prod(self.shapes[operand.kind])
        aligned = array.data.ptr % ALIGNMENT == 0 or not WIDE[operand.kind]
        return i not in self.strides and not (whole and aligned and array.flags.c_contiguous)

    # ---- kernels

    def add(self, stage: Stage, kernels: Kernels) -> None:
        """The launches of one stage."""
        variant = self.variant(stage)
        source, function = kernels.compile(stage, variant)
        grid, numbers = self.grid(stage, source, variant.vector, variant.width)
        count = len(self.types)
        after = count + stage.own  # the first temporary array
        place = {f"a{i}": i if i < count else after + i - count for i in range(len(stage.graph.operands))}
        place |= {f"o{n}": count + output for n, output in enumerate(stage.outputs)}
        seconds = []
        for name, names, threads, parts, shape in (
            ("columns", source.columns, COLUMN_BLOCK, grid[-1], (grid[-1], self.k)),
            ("totals", source.totals, BLOCK, math.prod(grid), (math.prod(grid),)),
        ):
            sums = [n for n in names if n[0] == "p" and n != "parts"]
            done = parts == 1  # the only partial sum is the result
            for p in sums:
                place[p] = place[f"o{p[1:]}"] if done else after + len(self.temporary)
                self.temporary += [] if done else [(shape, self.real)]
            if sums and not done:
                across = (-(-self.k // 32), len(sums)) if name == "columns" else (len(sums),)
                end = (np.uint32(parts), np.uint32(self.k)) if name == "columns" else (np.uint32(parts),)
                places = tuple(place[n] for n in names if n in place)
                seconds.append(Launch(function(f"{source.name}_{name}"), across, (threads,), places, end))
        places = tuple(place[n] for n in source.arguments if n in place)
        strides = tuple(np.int64(self.strides[int(n[1:])]) for n in source.arguments if n[0] == "s")
        block = COLUMN_BLOCK if source.columns else BLOCK
        self.launches += [Launch(function(source.name), grid, (block,), places, (*strides, *numbers)), *seconds]

    def variant(self, stage: Stage) -> Variant:
        """What this stage's kernel is specialised for."""
        count, graph = len(self.types), stage.graph
        types = (*self.types, *[self.real] * (len(graph.operands) - count))
        in_place = tuple(self.direct[n] if n < stage.own else None for n in stage.outputs)
        strided = frozenset(i for i in self.strides if i in graph.used)
        flat = is_flat(graph) and not strided and not stage.rows
        vector = ALIGNMENT // BYTES[self.dtype] if flat else self.row_vector()
        steps = -(-self.k // vector)
        width = 8 if steps <= 16 else 32 if steps <= 256 else BLOCK
        return Variant(types, in_place, strided, vector, width if stage.rows else 32, self.elements >= LARGE)

    def grid(
        self, stage: Stage, source: CudaSource, vector: int, width: int
    ) -> tuple[tuple[int, ...], tuple[Any, ...]]:
        """Blocks, and the numbers that the kernel gets. Both depend on shapes alone, and so does the order of sums."""
        number = np.uint64 if self.elements >= LARGE else np.uint32
        if stage.rows:
            return (-(-self.rows // (BLOCK // width)),), (number(self.rows), number(self.k))
        if source.columns:
            band = max(LEAST_BAND, -(-self.rows // MOST_BANDS))
            return (-(-self.k // (LANES * vector)), -(-self.rows // band)), (
                number(self.rows),
                number(self.k),
                number(band),
            )
        blocks = min(MOST_BLOCKS, -(-self.elements // (BLOCK * vector)))
        return (blocks,), (number(self.elements), number(self.k))[: 1 if source.arguments[-1] == "n" else 2]

    # ---- the call

    def run(self, operands: Sequence[Array], targets: Sequence[Array | None]) -> Any:
        """Copy what must be copied, make what is fresh, launch."""
        cupy, arrays = self.cupy, list(operands)
        for i in self.copies:
            operand = self.graph.operands[i]
            assert operand is not None  # it is used
            arrays[i] = contiguous(cupy, arrays[i], self.shapes[operand.kind])
        for (shape, dtype), target, place, into in zip(
            self.outputs, targets, self.direct, self.into_target, strict=True
        ):
            arrays.append(operands[place] if place is not None else target if into else cupy.empty(shape, dtype))
        arrays += [cupy.empty(shape, dtype) for shape, dtype in self.temporary]
        for launch in self.launches:
            launch.function(launch.grid, launch.block, (*[arrays[i] for i in launch.places], *launch.numbers))
        results = arrays[len(operands) : len(operands) + len(targets)]
        for n, target in enumerate(targets):
            if target is not None and target is not results[n]:
                target[...] = results[n]
                results[n] = target
        return results[0] if self.graph.single else tuple(results)


def is_ready(array: Array) -> bool:
    """Can a kernel write to it?"""
    return bool(array.flags.c_contiguous) and array.data.ptr % ALIGNMENT == 0


def contiguous(cupy: Any, array: Array, shape: Shape) -> Array:
    """An aligned copy with its elements one behind the other, spread to a shape."""
    copy = cupy.empty(shape, array.dtype)
    copy[...] = array
    return copy
