"""How far two evaluations of a formula in floating point may lie apart: running error analysis.

Each value of the graph is computed in float64, together with a bound of the rounding error that it has in the formula's
own type: half an eps of the result for an operation, a few for a function, c eps √m Σ|terms| for a sum in any order,
and what becomes of the arguments' errors. So a map gets a few eps of the magnitudes that went into it, a sum √m times
that, and a difference of nearly equal sums the error of the sums.

Reference: Higham: Accuracy and Stability of Numerical Algorithms (2002), section 3.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpunet.formula import Graph, Node, random_bits

SUM, FUNCTION = 4.0, 4.0
"""c of a sum: not 1, as the terms may be equal and their errors, too. The error of a function, in eps."""
EXACT = ("abs", "maximum", "minimum", "negative", "sign")
FUNCTIONS = ("erf", "exp", "expm1", "log", "log1p", "sigmoid", "tanh")
LEAVES = ("operand", "const", "index", "random_bits")
SUMS = ("sum", "mean", "total", "column_sum")
COMPARISONS = ("greater", "less", "greater_equal", "less_equal", "equal", "not_equal")
TESTS = ("isnan", "isinf", "isfinite", "logical_and", "logical_or", "logical_not")


@dataclass
class Known:
    """What is known of a value.

    value  in float64; infinite where the formula's type overflows
    error  bound of its rounding error
    open   nothing is known here: NaN, infinity or a number, depending on the order of operations
    exact  of a product, before it overflows: a fused multiply-add does not round it
    """

    value: Any
    error: Any
    open: Any
    exact: Any


def budgets(graph: Graph, operands: list[np.ndarray], dtype: str) -> list[tuple[Any, Any]]:
    """For each output: how far two evaluations may lie apart, and where they are not to be compared."""
    analysis, known = _Analysis(operands, dtype), []
    with np.errstate(all="ignore"):
        for node in graph.nodes:
            known.append(analysis.node(node, [known[a] for a in node.args]))
    return [(2 * known[o].error, known[o].open) for o in graph.outputs]


class _Analysis:
    def __init__(self, operands: list[np.ndarray], dtype: str):
        self.operands, self.type = operands, np.finfo(dtype)
        self.eps, self.largest = float(self.type.eps), float(self.type.max)
        self.shape = np.broadcast_shapes(*(o.shape for o in operands))

    def node(self, node: Node, args: list[Known]) -> Known:
        """What is known of an operation's result."""
        if node.op in LEAVES:
            return self.without_error(self.leaf(node, args))
        if node.op in SUMS:
            return self.sum(node, args[0])
        if node.op in COMPARISONS + TESTS:
            return self.test(node.op, args)
        if node.op == "where":
            return self.where(*args)
        if node.op == "max":
            return Known(*(f(axis=-1, keepdims=True) for f in self.of_maximum(args[0])))
        value = apply(node.op, *(a.value for a in args))
        return self.rounded(node.op, value, self.passed_on(node.op, value, args), args)

    # ---- leaves

    def without_error(self, value: Any) -> Known:
        """An exact value."""
        return Known(value, np.zeros(np.shape(value)), np.zeros(np.shape(value), bool), value)

    def leaf(self, node: Node, args: list[Known]) -> Any:
        """An operand, a constant in the formula's type, positions, random bits."""
        if node.op == "operand":
            operand = self.operands[node.value]
            return operand.astype(np.float64) if operand.dtype.kind == "f" else operand
        if node.op == "const":
            return float(self.type.dtype.type(node.value)) if node.dtype == "float" else node.value
        if node.op == "index":
            return np.arange(self.shape[-1])
        return random_bits(np.empty(self.shape), *(a.value for a in args))

    # ---- arithmetic

    def passed_on(self, op: str, value: Any, args: list[Known]) -> Any:
        """What becomes of the arguments' errors."""
        a, b = args[0], args[-1]
        if not any(np.any(x.error) for x in args):
            return np.zeros(np.shape(value))
        if op in ("add", "subtract"):
            return a.error + b.error
        if op in ("maximum", "minimum"):
            return np.maximum(a.error, b.error)
        if op == "multiply":
            return abs(a.value) * b.error + abs(b.value) * a.error + a.error * b.error
        if op == "divide":
            nearest = abs(b.value) - b.error
            return np.where(nearest > 0, (a.error + abs(value) * b.error) / nearest, np.inf)
        low, high = (apply(op, a.value + s * a.error) for s in (-1, 1))  # the others are monotone, or even
        farthest = np.fmax(abs(high - value), abs(low - value))  # NaN: √ below 0, which the value is not
        return np.where(a.error > 0, farthest, 0)

    def rounded(self, op: str, value: Any, error: Any, args: list[Known]) -> Known:
        """Add the operation's own error; mark what is on the edge of overflowing."""
        value, undecided = np.asarray(value), np.asarray(np.any(np.broadcast_arrays(*(a.open for a in args)), axis=0))
        own = 0.0 if op in EXACT else FUNCTION if op in FUNCTIONS else 0.5
        grain = self.type.tiny if op in FUNCTIONS else self.type.smallest_subnormal
        small = np.where((value != 0) & (abs(value) < self.type.tiny), float(grain), 0)
        error = np.where(np.isfinite(value), error + own * self.eps * abs(value) + (own > 0) * small, 0)
        clipped, exact = self.clipped(value), value if op in ("multiply", "square") else self.clipped(value)
        edge = np.isfinite(value) & (abs(abs(value) - self.largest) <= error + self.eps * self.largest)
        if op in ("add", "subtract"):
            fused = self.clipped(apply(op, *(a.exact for a in args)))
            edge |= ~same(fused, clipped)
        if op in ("multiply", "divide"):  # infinity and a number of uncertain sign
            zero, infinite = (
                [(a.error > 0) & (a.error >= abs(a.value)) for a in args],
                [np.isinf(a.value) for a in args],
            )
            edge |= (zero[0] | zero[1]) & (infinite[0] | infinite[1])
        if op == "negative":
            exact = -args[0].exact
        return Known(clipped, error, undecided | edge | ~np.isfinite(error), exact)

    def clipped(self, value: Any) -> Any:
        """Infinite where the formula's type is."""
        return np.where(abs(value) > self.largest, np.copysign(np.inf, value), value)

    # ---- choices

    def test(self, op: str, args: list[Known]) -> Known:
        """A comparison is open where its sides are closer than their errors."""
        value = apply(op, *(a.value for a in args))
        undecided = np.any(np.broadcast_arrays(*(a.open for a in args)), axis=0)
        if op in COMPARISONS:
            a, b = args
            margin = a.error + b.error
            undecided = undecided | ((margin > 0) & (abs(a.value - b.value) <= margin))
        return Known(value, np.zeros(np.shape(value)), undecided, value)

    def where(self, condition: Known, a: Known, b: Known) -> Known:
        """One of two; where the condition is open, either."""
        value = np.where(condition.value, a.value, b.value)
        error, undecided = (np.where(condition.value, *pair) for pair in ((a.error, b.error), (a.open, b.open)))
        gap = abs(a.value - b.value) + a.error + b.error
        error = np.where(condition.open, gap, error)
        return Known(value, error, undecided | ~np.isfinite(error), value)

    # ---- along the rows, over the rows

    def of_maximum(self, x: Known) -> tuple[Any, ...]:
        """Methods that reduce value, error, open and exact."""
        return x.value.max, x.error.max, x.open.any, x.value.max

    def sum(self, node: Node, x: Known) -> Known:
        """A sum in any order. Terms beyond the largest number may cancel in one order and not in another."""
        x = Known(*(np.broadcast_to(p, self.spread(node, np.shape(x.value))) for p in vars(x).values()))
        axis: Any = {"total": None, "column_sum": tuple(range(x.value.ndim - 1))}.get(node.op, -1)

        def over(array: Any) -> Any:
            return np.sum(array, axis=axis, keepdims=node.op in ("sum", "mean"))

        value, magnitude = over(x.value), over(abs(np.where(np.isfinite(x.value), x.value, 0)))
        terms = x.value.size / max(1, np.size(value))
        error = over(x.error) + self.eps * magnitude * min(max(terms - 1, 0) / 2, SUM * math.sqrt(terms))
        cancel = (over(x.value > 0) > 0) & (over(x.value < 0) > 0) & ~np.isnan(value)
        edge = (magnitude + error > self.largest) & cancel | ~same(self.clipped(over(x.exact)), self.clipped(value))
        edge |= np.isfinite(value) & (abs(abs(value) - self.largest) <= error)
        scale = x.value.shape[-1] if node.op == "mean" else 1
        value = self.clipped(value) / scale
        error = np.where(np.isfinite(value), error / scale + self.eps * abs(value) * (scale > 1), 0)
        return Known(value, error, (over(x.open) > 0) | edge | ~np.isfinite(error), value)

    def spread(self, node: Node, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The whole shape of what is summed over rows."""
        if node.op in ("sum", "mean"):
            return shape
        return self.shape if not shape or shape[-1] == self.shape[-1] else (*self.shape[:-1], 1)


def same(a: Any, b: Any) -> Any:
    """Equal, or both NaN; numbers that differ by rounding alone are no question of overflow."""
    finite = np.isfinite(a) & np.isfinite(b)
    return finite | (a == b) | (np.isnan(a) & np.isnan(b))


def apply(op: str, *args: Any) -> Any:
    """The value of an operation in float64."""
    if op == "sigmoid":
        return 1 / (1 + np.exp(-args[0]))
    if op == "erf":
        return np.vectorize(math.erf, otypes=[float])(args[0])
    return getattr(np, op)(*args)
