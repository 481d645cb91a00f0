"""A graph as the kernels that compute it: reductions along rows first, sums over rows after them."""

from __future__ import annotations

from dataclasses import dataclass

from gpunet.formula import Graph, Node, Operand
from gpunet.formula.graph import prune
from gpunet.formula.shapes import REDUCED, ROWS, WIDE
from gpunet_backends.schedule import REDUCTIONS


@dataclass(frozen=True)
class Stage:
    """One kernel.

    graph    what it computes; its operands are those of the whole formula, then narrow values of the stage before
    outputs  for each output of the graph: its number in the whole formula, from ``own`` on a value for the next stage
    own      outputs of the whole formula
    rows     each row has a group of threads of its own, which can reduce it; else every element has one
    """

    graph: Graph
    outputs: tuple[int, ...]
    own: int
    rows: bool


def stages(graph: Graph) -> list[Stage]:
    """One kernel, or two where a row must be reduced before it is summed with others, as in LayerNorm's backward.

    A kernel that sums over rows gives each thread some columns; one that reduces rows gives each group of threads a
    row. One kernel cannot do both without keeping whole rows.
    """
    nodes, outputs = graph.nodes, graph.outputs
    by_row = [n for n, o in enumerate(outputs) if _is_narrow(nodes, o)]
    reduces = bool(by_row) or any(n.op in REDUCTIONS for n in nodes)
    if not reduces or all(nodes[o].op != "column_sum" for o in outputs):
        return [Stage(graph, tuple(range(len(outputs))), len(outputs), reduces)]
    rest = [n for n in range(len(outputs)) if n not in by_row]
    handed = _handed_on(nodes, [outputs[n] for n in rest])
    first, positions = prune(nodes, [*(outputs[n] for n in by_row), *handed])
    given = {p: Node("operand", (), len(graph.operands) + i, nodes[p].kind, "float") for i, p in enumerate(handed)}
    replaced = [given.get(i, node) for i, node in enumerate(nodes)]
    second, ends = prune(replaced, [outputs[n] for n in rest])
    operands = [*graph.operands, *(Operand(nodes[p].kind, "float") for p in handed)]
    numbers = (*by_row, *range(len(outputs), len(outputs) + len(handed)))
    return [
        Stage(Graph(graph.name, graph.operands, first, positions, False), numbers, len(outputs), True),
        Stage(Graph(graph.name, operands, second, ends, False), tuple(rest), len(outputs), False),
    ]


def _is_narrow(nodes: list[Node], output: int) -> bool:
    """One value a row, or a sum of such values."""
    node = nodes[output]
    value = nodes[node.args[0]] if node.op in REDUCED else node
    return ROWS[value.kind] and not WIDE[value.kind]


def _handed_on(nodes: list[Node], targets: list[int]) -> list[int]:
    """The reduced values that the targets are computed from, by whatever follows the last reduction."""
    found: set[int] = set()
    seen: set[int] = set()
    stack = list(targets)
    reduced = [False] * len(nodes)  # depends on a reduction
    for i, node in enumerate(nodes):
        reduced[i] = node.op in REDUCTIONS or any(reduced[a] for a in node.args)
    while stack:
        i = stack.pop()
        if i in seen or not reduced[i]:
            continue
        seen.add(i)
        if WIDE[nodes[i].kind] or nodes[i].op in REDUCED:
            stack += nodes[i].args
        elif nodes[i].dtype == "float":
            found.add(i)
        else:
            stack += nodes[i].args
    return sorted(found)
