"""Straight-line NumPy source from a formula's graph.

Temporaries are reused as soon as their last reader has run, and results are written where they belong, so that a block
of rows passes through the whole formula while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from gpunet.formula import Graph, Node
from gpunet.formula import erf as erf_formula
from gpunet.random import threefry

RENAMED = {"abs": "absolute", "pow": "power"}
REDUCED = ("column_sum", "total")


def emit(graph: Graph, in_place: tuple[int | None, ...]) -> str:
    """Source of ``body(a0, a1, ..., o0, ..., shape, index, first)``, run on one block of rows.

    a<i>, o<n>   operand i, and where output n goes unless that is operand in_place[n]
    shape        the block's shape          index   positions along the last axis
    first        C-order index of the block's first element
    """
    return _Emitter(graph, in_place).source()


class _Emitter:
    def __init__(self, graph: Graph, in_place: tuple[int | None, ...]):
        self.graph, self.in_place = graph, in_place
        self.names: list[str] = []  # of each node's value
        self.lines: list[str] = []
        self.last_lines: list[str] = []
        self.reusable: set[int] = set()  # nodes whose array nobody else holds
        self.constant: set[int] = set()

    def source(self) -> str:
        """The whole function."""
        for position, node in enumerate(self.graph.nodes):
            if node.op == "operand":
                self.names.append(f"a{node.value}")
            elif node.op == "index":
                self.names.append("index")
            elif node.op == "const":
                self.names.append(repr(node.value))
                self.constant.add(position)
            elif node.op in REDUCED:
                self.names.append(f"v{position}")
                self.sum_rows(position, node)
            else:
                self.names.append(f"v{position}")
                self.lines.append(self.statement(position, node))
        for number, position in enumerate(self.graph.outputs):
            if self.graph.nodes[position].op not in REDUCED and self.names[position] != self.target(number):
                self.last_lines.append(f"copyto({self.target(number)}, {self.names[position]})")
        arguments = [f"a{i}" for i in range(len(self.graph.operands))]
        arguments += [f"o{n}" for n in range(len(self.graph.outputs))]
        header = f"def body({', '.join([*arguments, 'shape', 'index', 'first'])}):"
        return "\n    ".join([header, *self.lines, *self.last_lines]) + "\n"

    def target(self, output: int) -> str:
        """The array that holds an output."""
        operand = self.in_place[output]
        return f"o{output}" if operand is None else f"a{operand}"

    def sum_rows(self, position: int, node: Node) -> None:
        """column_sum and total, stored at the end where they replace an operand."""
        axis = "tuple(range(len(shape) - 1))" if node.op == "column_sum" else "None"
        for number, output in enumerate(self.graph.outputs):
            if output == position:
                line = f"add.reduce({self.names[node.args[0]]}, axis={axis}"
                if self.in_place[number] is None:
                    self.lines.append(f"{line}, out=o{number})")
                else:
                    self.lines.append(f"v{position} = {line})")
                    self.last_lines.append(f"copyto({self.target(number)}, v{position})")

    def statement(self, position: int, node: Node) -> str:
        """The line that computes one node."""
        args = ", ".join(self.names[a] for a in node.args)
        function = RENAMED.get(node.op, node.op)
        if all(a in self.constant for a in node.args) and node.op not in ("random_bits", "where"):
            self.constant.add(position)  # a Python number: NumPy's own scalars would widen float32
            return f"v{position} = {function}({args}).item()"
        if node.op in ("sum", "mean", "max"):
            ufunc = "maximum" if node.op == "max" else "add"
            line = f"v{position} = {ufunc}.reduce({args}, axis=-1, keepdims=True)"
            return f"{line} / index.size" if node.op == "mean" else line
        if node.op == "random_bits":
            return f"v{position} = random_bits(shape, first, {args})"
        out = self.destination(position, node)
        if out is None:
            self.reusable.add(position)
            return f"v{position} = {function}({args})"
        self.names[position] = out
        return f"{function}({args}, out={out})"

    def destination(self, position: int, node: Node) -> str | None:
        """Where an elementwise result may go at once: to its output, or over a temporary that dies here."""
        graph = self.graph
        for number, output in enumerate(graph.outputs):
            if output == position and self.may_store(number, position):
                return self.target(number)
        for argument in node.args:
            other = graph.nodes[argument]
            dies = argument in self.reusable and graph.last_use[argument] == position
            if dies and (other.kind, other.dtype) == (node.kind, node.dtype) and node.kind != "scalar":
                self.reusable.add(position)
                return self.names[argument]
        return None

    def may_store(self, output: int, position: int) -> bool:
        """May this output be stored now? Not while the operand that it replaces is still to be read."""
        operand = self.in_place[output]
        nodes = enumerate(self.graph.nodes)
        reads = [self.graph.last_use[p] for p, n in nodes if n.op == "operand" and n.value == operand]
        return operand is None or all(last <= position for last in reads)


def compile_source(source: str, name: str, dtype: np.dtype[Any]) -> Callable[..., None]:
    """The function ``body`` of a source, for one float type."""
    names: dict[str, Any] = {n: getattr(np, n) for n in dir(np) if isinstance(getattr(np, n), np.ufunc)}
    names |= {"copyto": np.copyto, "inf": np.inf, "nan": np.nan, "erf": _erf, "random_bits": _random_bits}
    names["where"] = partial(_select, dtype)
    exec(compile(source, f"<formula {name}>", "exec"), names)
    body: Callable[..., None] = names["body"]
    return body


def _select(dtype: np.dtype[Any], condition: Any, a: Any, b: Any, out: Any = None) -> Any:
    """where(condition, a, b) on the bits.

    14 times numpy.where on 128 x 512 random conditions, whose branches are mispredicted; level with it at 8 x 512.
    """
    bits = np.dtype(f"i{dtype.itemsize}")
    flag = np.asarray(condition).view(np.int8)
    target = None if out is None else out.view(bits)
    if repr(a) == "0.0":
        result = np.bitwise_and(_bits(b, dtype, bits), np.subtract(flag, np.int8(1)), target)
    elif repr(b) == "0.0":
        result = np.bitwise_and(_bits(a, dtype, bits), np.negative(flag), target)
    else:
        second = _bits(b, dtype, bits)
        changed = np.bitwise_and(np.bitwise_xor(_bits(a, dtype, bits), second), np.negative(flag))
        result = np.bitwise_xor(changed, second, target)
    return result.view(dtype)


def _bits(x: Any, dtype: np.dtype[Any], bits: np.dtype[Any]) -> Any:
    return np.asarray(x, dtype=dtype).view(bits)


def _random_bits(shape: tuple[int, ...], first: int, seed: Any, draw: Any, step: Any) -> Any:
    """32 random bits per element, in native uint32 arithmetic, which wraps."""
    size = int(np.prod(shape))
    element = np.arange(first, first + size, dtype=np.uint64).astype(np.uint32).reshape(shape)
    key0, key1, counter = (np.asarray(v).astype(np.uint32) for v in (seed, draw, step))
    return threefry((key0, key1), (element, counter), np.add, _rotate)[0]


def _rotate(a: Any, bits: int) -> Any:
    return (a << np.uint32(bits)) | (a >> np.uint32(32 - bits))


def _erf(x: Any, out: Any = None) -> Any:
    result = erf_formula(np.asarray(x))
    if out is None:
        return result
    out[...] = result
    return out
