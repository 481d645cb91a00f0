"""Evaluating a graph with the functions of any array-API namespace: the meaning of every operation."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gpunet.formula.erf import erf
from gpunet.formula.shapes import broadcast, dtype_kind
from gpunet.random import threefry

if TYPE_CHECKING:
    from gpunet.formula.graph import Graph, Node

OPERATORS: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "pow": operator.pow,
    "negative": operator.neg,
    "greater": operator.gt,
    "less": operator.lt,
    "greater_equal": operator.ge,
    "less_equal": operator.le,
    "equal": operator.eq,
    "not_equal": operator.ne,
}


def index_of(xp: Any, x: Any) -> Any:
    """Position along the last axis of an array, (k,) int32."""
    return xp.arange(x.shape[-1], dtype=xp.int32, device=device_of(x))


def random_bits_of(xp: Any, x: Any, seed: Any, draw: Any, step: Any) -> Any:
    """32 bits for each element of an array of this shape, as int64 in [0, 2**32)."""
    shape, device = tuple(x.shape), device_of(x)
    element = xp.reshape(xp.arange(math.prod(shape), dtype=xp.int64, device=device), shape)
    words = [xp.asarray(v, dtype=xp.int64, device=device) for v in (seed, draw, step)]
    return threefry((words[0], words[1]), (element, words[2]))[0]


def sigmoid_of(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)) of an array; exp overflows to inf for very negative x, which gives the right 0."""
    return 1 / (1 + xp.exp(-x))


def column_sum_of(xp: Any, y: Any) -> Any:
    """Sum of an array over all axes but the last, (k,)."""
    rows = math.prod(y.shape[:-1])
    return xp.sum(xp.reshape(y, (rows, y.shape[-1])), axis=0)


def device_of(x: Any) -> Any:
    """The device of an array of any namespace."""
    from array_api_compat import device  # imported late: `import gpunet` stays light

    return device(x)


def evaluate(graph: Graph, xp: Any, operands: Sequence[Any]) -> tuple[Any, ...]:
    """The outputs of a graph as fresh arrays; each value is freed after its last use."""
    evaluator = _Evaluator(xp, [o for o in operands if o is not None])
    nodes = graph.nodes
    values: list[Any] = []
    for position, node in enumerate(nodes):
        args = [values[a] for a in node.args]
        if node.op in ("column_sum", "total"):
            args = [evaluator.spread(args[0], nodes[node.args[0]].kind)]
        values.append(operands[node.value] if node.op == "operand" else evaluator.apply(node, args))
        for argument in node.args:
            if graph.last_use[argument] == position:
                values[argument] = None
    outputs: list[Any] = []
    for output in graph.outputs:
        node, value = nodes[output], values[output]
        if node.op not in ("column_sum", "total"):
            value = evaluator.spread(value, node.kind)
        own = node.op not in ("operand", "const") and value is values[output]
        if not own or output in graph.outputs[: len(outputs)]:
            value = xp.asarray(value, copy=True)
        outputs.append(xp.asarray(value))  # NumPy's sums are scalars, not arrays
    return tuple(outputs)


class _Evaluator:
    """Applies operations to arrays of one namespace; knows the shape they broadcast to."""

    def __init__(self, xp: Any, operands: list[Any]):
        self.xp = xp
        self.shape = broadcast([tuple(a.shape) for a in operands])
        self.like = next((a for a in operands if dtype_kind(a.dtype) == "float"), operands[0])

    def apply(self, node: Node, args: list[Any]) -> Any:
        """The value of one node."""
        xp, op = self.xp, node.op
        if op == "const":
            return node.value
        if op == "index":
            return index_of(xp, self.spread(self.like, "full"))
        if op == "random_bits":
            return random_bits_of(xp, self.spread(self.like, "full"), *args)
        if op == "column_sum":
            return column_sum_of(xp, args[0])
        if op == "total":
            return xp.sum(args[0])
        if op in ("sum", "max", "mean"):
            return getattr(xp, op)(args[0], axis=-1, keepdims=True)
        if op in OPERATORS and any(hasattr(a, "shape") for a in args):
            return OPERATORS[op](*args)
        condition, values = args[: op == "where"], [self.array(a) for a in args[op == "where" :]]
        if op == "erf":
            return getattr(xp, "erf", lambda x: erf(xp, x))(*values)
        if op == "sigmoid":
            return sigmoid_of(xp, *values)
        return getattr(xp, op)(*condition, *values)

    def array(self, value: Any) -> Any:
        """A constant as a 0-d array of the formula's float type, where a function needs one."""
        if hasattr(value, "shape"):
            return value
        dtype = self.xp.bool if isinstance(value, bool) else self.like.dtype
        return self.xp.full((), value, dtype=dtype, device=device_of(self.like))

    def spread(self, value: Any, kind: str) -> Any:
        """A value at the full size its kind says, for outputs and sums."""
        shape = {"full": self.shape, "row": (*self.shape[:-1], 1), "col": self.shape[-1:], "scalar": ()}[kind]
        value = self.array(value)
        if tuple(value.shape) == shape:
            return value
        if kind in ("col", "scalar"):
            return self.xp.reshape(value, shape)
        return self.xp.broadcast_to(value, shape)
