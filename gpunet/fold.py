"""Folding: the formulas of neighbouring pointwise layers composed into one, their derivatives into another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from gpunet.backend import Array, Fused
from gpunet.formula import Graph, Operand, classify, column_sum, dtype_name, total, trace
from gpunet.parameter import Parameter

if TYPE_CHECKING:
    from gpunet.context import Context
    from gpunet.pointwise import Pointwise


class Plan:
    """What a group runs in one mode.

    layers     the members that are not the identity; none: y = x
    saves      what backward needs besides dy: the input, the output, or nothing
    trained    positions of the operands that get a gradient
    summed     for each of them, whether it is a sum over rows, (k,); else it is a total, of one element
    passes_dy  dx is dy itself
    """

    def __init__(self, layers: list[Pointwise], forward: Fused | None, saves: Literal["x", "y"] | None):
        self.layers, self.forward, self.saves = layers, forward, saves
        self.trained: list[int] = []
        self.summed: dict[int, bool] = {}
        self.passes_dy = forward is None
        self._with_dx: Fused | None = None
        self._without_dx: Fused | None = None

    def backward(self, needs_input_grad: bool) -> Fused | None:
        """The fused derivative; None if there is nothing to compute."""
        return self._with_dx if needs_input_grad else self._without_dx


def plan(layers: Sequence[Pointwise], x: Array, ctx: Context) -> Plan:
    """Compose the layers' formulas and derivatives for inputs like x in this context."""
    active = [layer for layer in layers if not layer.is_identity(ctx)]
    if not active:
        return Plan([], None, None)
    draws = ctx.draws
    groups = [layer.operands(ctx) for layer in active]
    ctx.draws = draws  # planning draws nothing
    operands = [o for group in groups for o in group]
    shapes = [tuple(x.shape), *(tuple(o.shape) for o in operands)]
    types = [dtype_name(x.dtype)]
    types += [types[0] if isinstance(o, Parameter) else dtype_name(o.dtype) for o in operands]
    kinds = classify(shapes, types)
    name = "+".join(type(layer).__name__ for layer in active)

    composed = _Composition(active, [len(g) for g in groups], operands, shapes[0][-1] if shapes[0] else 1)
    graph, saves = _derivative(composed, kinds, name)
    forward = trace(composed.forward, kinds, name)
    made = Plan(active, ctx.backend.fuse(forward), saves)
    made.trained, made.summed = composed.trained, composed.summed
    made.passes_dy = graph.nodes[graph.outputs[0]] == ("operand", (), 0, "full", "float")
    leaves = {"x": (0, 1), "y": (0, 2), None: (0,)}[saves]
    skip = int(made.passes_dy)
    if len(graph.outputs) > skip:
        made._with_dx = ctx.backend.fuse(_Selected(graph, leaves, skip))
    if composed.trained:
        made._without_dx = ctx.backend.fuse(_Selected(graph, leaves, 1))
    return made


def _derivative(composed: _Composition, kinds: list[Operand], name: str) -> tuple[Graph, Literal["x", "y"] | None]:
    """The graph of (dx, *gradients) from (dy, x, y, *operands) that needs the fewest leaves.

    First with the output as a leaf: bias + ReLU then needs y alone, and y is at hand. If that touches x all the same,
    y is computed again from x.
    """
    full = kinds[0]
    graph = trace(composed.backward, [full, full, full, *kinds[1:]], f"{name}'")
    if 1 not in graph.used:
        return graph, "y" if 2 in graph.used else None
    return trace(composed.backward, [full, full, None, *kinds[1:]], f"{name}'"), "x"


class _Composition:
    """The layers' formulas as one formula, and their derivatives as one by the chain rule."""

    def __init__(self, layers: list[Pointwise], counts: list[int], operands: Sequence[Parameter | Array], k: int):
        self.layers, self.counts = layers, counts
        self.is_parameter = [isinstance(o, Parameter) for o in operands]
        self.trained = [i for i, o in enumerate(operands) if isinstance(o, Parameter) and o.trainable]
        self.summed = {i: operands[i].shape == (k,) for i in self.trained}

    def _steps(self, operands: Sequence[Any]) -> Iterator[tuple[Pointwise, Sequence[Any]]]:
        at = 0
        for layer, count in zip(self.layers, self.counts, strict=True):
            yield layer, operands[at : at + count]
            at += count

    def forward(self, xp: Any, x: Any, *operands: Any) -> Any:
        """y = f_n(... f_1(x))."""
        for layer, own in self._steps(operands):
            x = layer.formula(xp, x, *own)
        return x

    def backward(self, xp: Any, dy: Any, x: Any, y: Any, *operands: Any) -> Any:
        """(dx, *gradients): inner values are computed again from x; y may be the saved one."""
        steps = list(self._steps(operands))
        values = [x]
        for layer, own in steps[:-1]:
            values.append(layer.formula(xp, values[-1], *own))
        last, own = steps[-1]
        values.append(last.formula(xp, values[-1], *own) if y is None else y)
        unsummed: list[Any] = []
        for j in range(len(steps) - 1, -1, -1):
            layer, own = steps[j]
            result = layer.derivative(xp, dy, values[j], values[j + 1], *own)
            dy, *gradients = result if isinstance(result, tuple) else (result,)
            unsummed[:0] = gradients
        by_operand = dict(zip((i for i, p in enumerate(self.is_parameter) if p), unsummed, strict=True))
        return (dy, *(column_sum(by_operand[i]) if self.summed[i] else total(by_operand[i]) for i in self.trained))


class _Selected:
    """A derivative's graph as a formula of (dy, what was saved, *operands), without its first ``skip`` outputs."""

    def __init__(self, graph: Graph, leaves: tuple[int, ...], skip: int):
        self.graph, self.leaves, self.skip, self.name = graph, leaves, skip, graph.name

    def __call__(self, xp: Any, *arguments: Any) -> Any:
        given = len(self.leaves)
        first: list[Any] = [None, None, None]
        for leaf, value in zip(self.leaves, arguments[:given], strict=True):
            first[leaf] = value
        return self.graph(xp, *first, *arguments[given:])[self.skip :]
