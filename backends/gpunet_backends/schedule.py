"""What a compiled kernel does: passes along each row, each after the reductions whose results it reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpunet.formula import Graph, Node
from gpunet.formula.shapes import REDUCED, ROWS, WIDE

REDUCTIONS = ("sum", "mean", "max")
LEAVES = ("operand", "const", "index")
COSTLY = frozenset(("cos", "erf", "exp", "expm1", "log", "log1p", "pow", "random_bits", "sigmoid", "sin", "tanh"))
"""Operations whose value is kept in a buffer of one row if several passes read it; others are computed again."""


@dataclass(frozen=True)
class Pass:
    """One loop along a row. Numbers are positions of nodes.

    narrow      one value a row, computed before the loop
    loads       values that an earlier pass kept
    wide        values of each element, in evaluation order
    keeps       those of ``wide`` that later passes load
    reductions  sums, means and maxima that the loop accumulates
    """

    narrow: tuple[int, ...]
    loads: tuple[int, ...]
    wide: tuple[int, ...]
    keeps: tuple[int, ...]
    reductions: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """The passes of a graph. Everything is stored, and summed over rows, in the last pass of a row.

    once   passes over what does not vary over rows; run before the first row
    rows   passes of each row
    flat   the graph knows no rows: it may run over all elements as one
    """

    once: tuple[Pass, ...]
    rows: tuple[Pass, ...]
    flat: bool

    def kept(self) -> list[int]:
        """Nodes that need a row buffer."""
        return sorted(i for p in (*self.once, *self.rows) for i in p.keeps)


def schedule(graph: Graph, *, keep: frozenset[str] = COSTLY, hoist: bool = True) -> Schedule:
    """Passes for a graph whose outputs vary over rows or sum over them.

    keep   operations whose values are kept for later passes
    hoist  what does not vary over rows is computed once; else with each row
    """
    nodes = graph.nodes
    last = [o if nodes[o].op not in REDUCED else nodes[o].args[0] for o in graph.outputs]
    inside = [n.op not in REDUCED for n in nodes]
    before = [hoist and ok and not ROWS[n.kind] for n, ok in zip(nodes, inside, strict=True)]
    within = [ok and not b for ok, b in zip(inside, before, strict=True)]
    return Schedule(_passes(nodes, (), before, keep), _passes(nodes, last, within, keep), is_flat(graph))


def is_flat(graph: Graph) -> bool:
    """Does nothing in the graph know rows?"""
    by_row = (*REDUCTIONS, "index", "column_sum")
    return all(n.kind in ("full", "scalar") and n.op not in by_row for n in graph.nodes)


def _passes(
    nodes: Sequence[Node], last: Sequence[int], inside: Sequence[bool], keep: frozenset[str]
) -> tuple[Pass, ...]:
    """Passes of one phase, to which some nodes belong. A node's level is the number of reductions on the way to it."""
    level: list[int] = []
    for i, node in enumerate(nodes):
        below = max((level[a] for a in node.args), default=0) if inside[i] else 0
        level.append(below + (inside[i] and node.op in REDUCTIONS))
    depth = max((level[i] for i in range(len(nodes)) if inside[i]), default=0)
    narrow: list[list[int]] = [[] for _ in range(depth + 1)]
    reductions: list[list[int]] = [[] for _ in range(depth + 1)]
    for i, node in enumerate(nodes):
        if not inside[i] or node.op in LEAVES:
            continue
        if node.op in REDUCTIONS:
            reductions[level[i] - 1].append(i)
        elif not WIDE[node.kind]:
            narrow[level[i]].append(i)
    targets = [[nodes[r].args[0] for r in reductions[at]] for at in range(depth + 1)]
    targets[depth] += last
    needed = [set(_wide(nodes, t, ())) for t in targets]
    costly = {i for i in set().union(*needed) if nodes[i].op in keep and sum(i in n for n in needed) > 1}
    passes: list[Pass] = []
    kept: set[int] = set()
    for at in range(depth + 1):
        wide = _wide(nodes, targets[at], kept)
        read = {a for i in wide for a in nodes[i].args} | set(targets[at])
        loads = sorted(kept & read)
        keeps = [i for i in wide if i in costly]
        kept.update(keeps)
        passes.append(Pass(*map(tuple, (narrow[at], loads, wide, keeps, reductions[at]))))
    return tuple(passes)


def _wide(nodes: Sequence[Node], targets: Iterable[int], known: Iterable[int]) -> list[int]:
    """The wide values that the targets need, in evaluation order, without those that are known."""
    found = set(known)
    stack = [t for t in targets if WIDE[nodes[t].kind]]
    needed = set()
    while stack:
        i = stack.pop()
        if i in found:
            continue
        found.add(i)
        needed.add(i)
        stack += [a for a in nodes[i].args if WIDE[nodes[a].kind]]
    return sorted(needed)
