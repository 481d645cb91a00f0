"""One operation of a formula as a Python expression that Numba compiles to vector instructions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from gpunet.formula import Node

OPERATORS = {
    "add": "{} + {}",
    "subtract": "{} - {}",
    "multiply": "{} * {}",
    "divide": "{} / {}",
    "negative": "-{}",
    "abs": "abs({})",
    "square": "{0} * {0}",
    "sqrt": "np.sqrt({})",
    "floor": "np.floor({})",
    "ceil": "np.ceil({})",
    "sin": "real(math.sin({}))",
    "cos": "real(math.cos({}))",
    "greater": "{} > {}",
    "less": "{} < {}",
    "greater_equal": "{} >= {}",
    "less_equal": "{} <= {}",
    "equal": "{} == {}",
    "not_equal": "{} != {}",
    "logical_and": "{} & {}",
    "logical_or": "{} | {}",
    "logical_not": "not {}",
    "isnan": "{0} != {0}",
    "isinf": "abs({}) == inf",
    "isfinite": "abs({}) < inf",
    "where": "{1} if {0} else {2}",
}
FUNCTIONS = {"maximum": "max", "minimum": "min"}
"""Names in ``numba_math``, where they differ from the operation's."""
COMPARISONS = ("greater", "less", "greater_equal", "less_equal", "equal", "not_equal")
SHARED = ("max_int", "random_bits")
"""Functions of ``numba_math`` that have no version of their own for each float type."""


class Expressions:
    """Expressions over the values v<p> of the nodes; collects the functions of ``numba_math`` that they call."""

    def __init__(self, nodes: Sequence[Node], flat: bool):
        self.nodes, self.flat = nodes, flat
        self.functions: set[str] = set()

    def value(self, node: Node) -> str:
        """The value of one operation."""
        op, args = node.op, node.args
        if op == "random_bits":
            element = "u32(start + j)" if self.flat else "u32(row_start + u32(j))"
            seed, draw, step = (f"u32({self.ref(a)})" for a in args)
            return f"{self.use('random_bits')}({seed}, {draw}, {element}, {step})"
        if op in COMPARISONS:
            return OPERATORS[op].format(*self.compared(args))
        names = [self.ref(a) for a in args]
        if op == "pow" and (power := self.small_power(args[1])):
            return " * ".join([names[0]] * power)
        if op in ("maximum", "minimum") and self.is_number(args[1]):  # one instruction; NaN compares false and stays
            return f"{names[1]} if {names[0]} {'<' if op == 'maximum' else '>'} {names[1]} else {names[0]}"
        if op in OPERATORS:
            return OPERATORS[op].format(*names)
        return f"{self.use(FUNCTIONS.get(op, op))}({', '.join(names)})"

    def compared(self, args: tuple[int, ...]) -> list[str]:
        """Both sides of a comparison in one type: random bits are unsigned, constants take their partner's type."""
        nodes = [self.nodes[a] for a in args]
        if all(n.dtype != "int" for n in nodes):
            return [self.ref(a) for a in args]
        bits = [n.op == "random_bits" for n in nodes]
        constants = [n.value if n.op == "const" else None for n in nodes]
        if any(bits):
            if all(b or (c is not None and 0 <= c < 2**32) for b, c in zip(bits, constants, strict=True)):
                return [f"u32({self.ref(a)})" for a in args]
            return [f"np.int64({self.ref(a)})" for a in args]
        if any(c is not None and abs(c) < 2**31 for c in constants):
            return [f"np.int32({c})" if c is not None else self.ref(a) for a, c in zip(args, constants, strict=True)]
        return [self.ref(a) for a in args]

    def ref(self, position: int) -> str:
        """The name of a value, or a constant."""
        node = self.nodes[position]
        if node.op != "const":
            return f"v{position}"
        if node.dtype != "float":
            return repr(node.value)
        if math.isnan(node.value):
            return "nan"
        return f"real({node.value!r})" if math.isfinite(node.value) else "inf" if node.value > 0 else "(-inf)"

    def is_number(self, position: int) -> bool:
        """Is it a constant, and not NaN?"""
        node = self.nodes[position]
        return node.op == "const" and not math.isnan(node.value)

    def small_power(self, position: int) -> int:
        """The exponent, if it is 1 to 4; else 0."""
        node = self.nodes[position]
        return int(node.value) if node.op == "const" and node.value in (1.0, 2.0, 3.0, 4.0) else 0

    def use(self, name: str) -> str:
        """The name under which the kernel imports a function of ``numba_math``."""
        self.functions.add(name)
        return name if name in SHARED else f"{name}_"

    def imports(self, suffix: str) -> str:
        """What to import from ``numba_math``; empty if nothing."""
        return ", ".join(n if n in SHARED else f"{n}_{suffix} as {n}_" for n in sorted(self.functions))
