"""One operation of a formula as a Python expression that Numba compiles to vector instructions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

from gpunet.formula import Node
from gpunet_backends.expressions import Expressions

FUNCTIONS = {"maximum": "max", "minimum": "min"}
"""Names in ``numba_math``, where they differ from the operation's."""
SHARED = ("max_int", "random_bits")
"""Functions of ``numba_math`` that have no version of their own for each float type."""


class NumbaExpressions(Expressions):
    """Collects the functions of ``numba_math`` that the expressions call."""

    OPERATORS: ClassVar[Mapping[str, str]] = {
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

    def __init__(self, nodes: Sequence[Node], flat: bool):
        super().__init__(nodes)
        self.flat = flat
        self.functions: set[str] = set()

    def call(self, op: str, args: tuple[int, ...], names: Sequence[str]) -> str:
        """A function of ``numba_math``, or a selection."""
        if op in ("maximum", "minimum") and self.is_number(args[1]):  # one instruction; NaN compares false and stays
            return f"{names[1]} if {names[0]} {'<' if op == 'maximum' else '>'} {names[1]} else {names[0]}"
        return f"{self.use(FUNCTIONS.get(op, op))}({', '.join(names)})"

    def random_bits(self, seed: str, draw: str, step: str) -> str:
        """Random bits of element j of the row, or of all."""
        element = "u32(start + j)" if self.flat else "u32(row_start + u32(j))"
        return f"{self.use('random_bits')}(u32({seed}), u32({draw}), {element}, u32({step}))"

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

    def constant(self, node: Node) -> str:
        """A number in the formula's float type."""
        if node.dtype != "float":
            return repr(node.value)
        if math.isnan(node.value):
            return "nan"
        return f"real({node.value!r})" if math.isfinite(node.value) else "inf" if node.value > 0 else "(-inf)"

    def use(self, name: str) -> str:
        """The name under which the kernel imports a function of ``numba_math``."""
        self.functions.add(name)
        return name if name in SHARED else f"{name}_"

    def imports(self, suffix: str) -> str:
        """What to import from ``numba_math``; empty if nothing."""
        return ", ".join(n if n in SHARED else f"{n}_{suffix} as {n}_" for n in sorted(self.functions))
