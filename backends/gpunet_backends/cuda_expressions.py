"""One operation of a formula as an expression in CUDA C++."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from gpunet.formula import Node
from gpunet_backends.expressions import Expressions

FUNCTIONS = frozenset(("ceil", "cos", "erf", "exp", "expm1", "floor", "log", "log1p", "pow", "sin", "sqrt", "tanh"))
"""Functions of the CUDA library: expf for float, exp for double."""
SMALL_INTEGERS = ("int8", "int16", "int32", "uint8", "uint16")


class CudaExpressions(Expressions):
    """real  "float" or "double"
    types  data types of the operands
    """

    OPERATORS: ClassVar[Mapping[str, str]] = {
        "add": "{} + {}",
        "subtract": "{} - {}",
        "multiply": "{} * {}",
        "divide": "{} / {}",
        "negative": "-{}",
        "square": "{0} * {0}",
        "greater": "{} > {}",
        "less": "{} < {}",
        "greater_equal": "{} >= {}",
        "less_equal": "{} <= {}",
        "equal": "{} == {}",
        "not_equal": "{} != {}",
        "logical_and": "{} && {}",
        "logical_or": "{} || {}",
        "logical_not": "!{}",
        "isnan": "{0} != {0}",
        "where": "{} ? {} : {}",
        "maximum": "maximum<real>({}, {})",
        "minimum": "minimum<real>({}, {})",
        "sign": "sign<real>({})",
        "sigmoid": "sigmoid({})",
    }

    def __init__(self, nodes: Sequence[Node], real: str, types: Sequence[str]):
        super().__init__(nodes)
        self.real, self.types = real, types
        self.suffix = "f" if real == "float" else ""

    def call(self, op: str, args: tuple[int, ...], names: Sequence[str]) -> str:
        """A function of the CUDA library."""
        if op in ("abs", "isinf", "isfinite"):
            test = {"abs": "", "isinf": " == infinity<real>()", "isfinite": " < infinity<real>()"}[op]
            return f"fabs{self.suffix}({names[0]}){test}"
        assert op in FUNCTIONS, op
        return f"{op}{self.suffix}({', '.join(names)})"

    def random_bits(self, seed: str, draw: str, step: str) -> str:
        """Random bits of element e + u."""
        return f"random_bits((unsigned){seed}, (unsigned){draw}, (unsigned)(e + u), (unsigned){step})"

    def compared(self, args: tuple[int, ...]) -> list[str]:
        """Both sides of a comparison in one type: C++ would turn a negative partner of an unsigned number around."""
        nodes = [self.nodes[a] for a in args]
        if all(n.dtype != "int" for n in nodes):
            return [self.ref(a) for a in args]
        types = {self.type(n) for n in nodes} - {""}
        if types <= {"unsigned"} and all(n.op != "const" or 0 <= n.value < 2**32 for n in nodes):
            return [f"{n.value}u" if n.op == "const" else self.ref(a) for a, n in zip(args, nodes, strict=True)]
        if types == {"int"} and all(n.op != "const" or abs(n.value) < 2**31 for n in nodes):
            return [self.ref(a) for a in args]
        return [f"(long long){self.ref(a)}" for a in args]

    def type(self, node: Node) -> str:
        """The C++ type of a value; empty for an integer constant, which takes its partner's."""
        if node.dtype != "int":
            return "bool" if node.dtype == "bool" else "real"
        if node.op == "operand":
            return "int" if self.types[node.value] in SMALL_INTEGERS else "long long"
        return {"index": "int", "random_bits": "unsigned", "const": ""}[node.op]

    def constant(self, node: Node) -> str:
        """A number in the formula's float type, to all its digits."""
        if node.dtype == "bool":
            return str(node.value).lower()
        if node.dtype == "int":
            return (
                f"({node.value}ll)"
                if abs(node.value) >= 2**31
                else f"({node.value})"
                if node.value < 0
                else str(node.value)
            )
        with np.errstate(all="ignore"):
            value = float(np.float32(node.value)) if self.real == "float" else float(node.value)
        if math.isnan(value):
            return "not_a_number<real>()"
        if math.isinf(value):
            return "infinity<real>()" if value > 0 else "(-infinity<real>())"
        text = f"{value:.9g}" if self.real == "float" else f"{value:.17g}"
        text += "" if set(text) & set(".e") else ".0"
        return f"({text}{self.suffix})" if text.startswith("-") else f"{text}{self.suffix}"
