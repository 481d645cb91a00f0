"""One operation of a formula as an expression of the language that a kernel is written in."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from gpunet.formula import Node

COMPARISONS = ("greater", "less", "greater_equal", "less_equal", "equal", "not_equal")


class Expressions(ABC):
    """Expressions over the values v<p> of the nodes. Each language is a subclass.

    OPERATORS  how operations are written that need no function
    """

    OPERATORS: ClassVar[Mapping[str, str]]

    def __init__(self, nodes: Sequence[Node]):
        self.nodes = nodes

    def value(self, node: Node) -> str:
        """The value of one operation."""
        op, args = node.op, node.args
        if op == "random_bits":
            return self.random_bits(*(self.ref(a) for a in args))
        if op in COMPARISONS:
            return self.OPERATORS[op].format(*self.compared(args))
        names = [self.ref(a) for a in args]
        if op == "pow" and (power := self.small_power(args[1])):
            return " * ".join([names[0]] * power)
        if op in self.OPERATORS:
            return self.OPERATORS[op].format(*names)
        return self.call(op, args, names)

    @abstractmethod
    def call(self, op: str, args: tuple[int, ...], names: Sequence[str]) -> str:
        """An operation that is a function."""

    @abstractmethod
    def random_bits(self, seed: str, draw: str, step: str) -> str:
        """Random bits of the current element."""

    @abstractmethod
    def compared(self, args: tuple[int, ...]) -> list[str]:
        """Both sides of a comparison, in one type."""

    def ref(self, position: int) -> str:
        """The name of a value, or a constant."""
        node = self.nodes[position]
        return f"v{position}" if node.op != "const" else self.constant(node)

    @abstractmethod
    def constant(self, node: Node) -> str:
        """A number of the formula."""

    def is_number(self, position: int) -> bool:
        """Is it a constant, and not NaN?"""
        node = self.nodes[position]
        return node.op == "const" and not math.isnan(node.value)

    def small_power(self, position: int) -> int:
        """The exponent, if it is 1 to 4; else 0."""
        node = self.nodes[position]
        return int(node.value) if node.op == "const" and node.value in (1.0, 2.0, 3.0, 4.0) else 0
