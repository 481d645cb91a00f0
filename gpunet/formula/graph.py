"""Graph: a traced formula."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from gpunet.formula.evaluate import evaluate
from gpunet.formula.shapes import DType, Kind, Operand

Array: TypeAlias = Any


class Node(NamedTuple):
    """One operation: its arguments are positions of earlier nodes; ``value`` is a constant or an operand number."""

    op: str
    args: tuple[int, ...]
    value: Any
    kind: Kind
    dtype: DType


class Graph:
    """A traced formula: pruned, in evaluation order; itself a formula, so graphs compose by calling.

    operands   one Operand per argument of the formula (None: it must not touch that one)
    nodes      the operations that the outputs need, each after its arguments
    outputs    positions of the outputs among the nodes
    single     the formula returned a bare value, not a tuple
    used       numbers of the operands that the outputs depend on
    key        structure, constants by repr (0.0 is not -0.0) and operand kinds; no identity, no sizes
    last_use   for each node, the position of the last node that reads it
    """

    def __init__(
        self, name: str, operands: Sequence[Operand | None], nodes: list[Node], outputs: tuple[int, ...], single: bool
    ):
        self.name, self.operands, self.single = name, list(operands), single
        self.nodes, self.outputs = nodes, outputs
        self.used = frozenset(n.value for n in nodes if n.op == "operand")
        self.key = (tuple((n.op, n.args, repr(n.value), n.kind, n.dtype) for n in nodes), outputs, tuple(operands))
        self.last_use = list(range(len(nodes)))
        for position, node in enumerate(nodes):
            for argument in node.args:
                self.last_use[argument] = position
        for output in outputs:
            self.last_use[output] = len(nodes)

    def __call__(self, xp: Any, *operands: Array) -> Any:
        """Evaluate with any namespace; with a symbolic one, trace the graph again as part of another formula."""
        replay = getattr(xp, "replay", None)
        if replay is None:
            result = evaluate(self, xp, operands)
        else:
            values: list[Any] = []
            for node in self.nodes:
                symbol = operands[node.value] if node.op == "operand" else replay(node, [values[a] for a in node.args])
                values.append(symbol)
            result = tuple(values[o] for o in self.outputs)
        return result[0] if self.single else result


def prune(nodes: list[Node], outputs: Sequence[int]) -> tuple[list[Node], tuple[int, ...]]:
    """Only what the outputs need, renumbered, in evaluation order."""
    order: list[int] = []
    seen: set[int] = set()

    def visit(position: int) -> None:
        if position in seen:
            return
        seen.add(position)
        for argument in nodes[position].args:
            visit(argument)
        order.append(position)

    for output in outputs:
        visit(output)
    place = {position: i for i, position in enumerate(order)}
    kept = [nodes[p]._replace(args=tuple(place[a] for a in nodes[p].args)) for p in order]
    return kept, tuple(place[o] for o in outputs)
