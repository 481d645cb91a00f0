"""How the rows of a compiled kernel are cut: into blocks that are summed on their own, into parts for threads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from gpunet.backend import Shape
from gpunet.formula import Graph
from gpunet.formula.shapes import WIDE
from gpunet_backends.schedule import COSTLY
from gpunet_backends.threads import thread_count

FLAT_BLOCK = 4096
"""Elements whose sum is one partial sum in a flat kernel."""
PARALLEL_FROM = 1 << 22
"""Costly operations, in exponentials, that are worth another thread: benchmarks/choices.py."""
RANDOM_WORK = 4
"""Random bits take the time of four exponentials."""


def row_block(k: int) -> int:
    """Rows whose sum is one partial sum: depends on nothing but k, so that neither does the order of summation."""
    return max(64, min(512, 65536 // k))


@dataclass(frozen=True)
class Blocks:
    """Of ``length`` rows, or elements of a flat kernel: ``size`` make a block, ``cuts`` are the parts for threads."""

    length: int
    size: int
    cuts: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        """Number of blocks."""
        return -(-self.length // self.size)


def blocks(graph: Graph, full: Shape, *, flat: bool, sums: bool) -> Blocks:
    """Blocks of a kernel for results of this shape. Where there are sums, a thread's part is made of whole blocks."""
    elements, k = math.prod(full), full[-1]
    length, size = (elements, FLAT_BLOCK) if flat else (elements // k, row_block(k))
    costly = [n.op for n in graph.nodes if n.op in COSTLY and WIDE[n.kind]]
    work = elements * sum(RANDOM_WORK if op == "random_bits" else 1 for op in costly)
    threads = min(thread_count(), work // PARALLEL_FROM + 1)
    unit = size if sums else 64 if flat else 1
    units = -(-length // unit)
    ends = [min(length, unit * (units * t // threads)) for t in range(threads + 1)]
    return Blocks(length, size, tuple((a, b) for a, b in pairwise(ends) if a < b))
