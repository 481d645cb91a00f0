"""Straight-line NumPy source from a formula's graph.

Temporaries are reused as soon as their last reader has run, and results are written where they belong, so that a block
of rows passes through the whole formula while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gpunet.formula import Graph, Node, erf, sigmoid
from gpunet.random import threefry

RENAMED = {"abs": "absolute", "pow": "power"}
REDUCED = ("column_sum", "total")
BITS: dict[int, Any] = {4: np.dtype(np.int32), 8: np.dtype(np.int64)}
ONE = np.int8(1)


def emit(graph: Graph, in_place: tuple[int | None, ...]) -> Source:
    """Source of two functions: ``scalars(a0, ...)``, run once, and ``body``, run on one block of rows after another.

    a<i>, o<n>   operand i, and where output n goes; an output that is no sum may go to operand in_place[n] instead
    v<p>         a value of the graph; those that ``scalars`` returns are arguments of ``body``
    c<p>         a constant that fills a row
    shape        the block's shape          index   positions along the last axis
    first        C-order index of the block's first element
    """
    return _Emitter(graph, in_place).source()


@dataclass(frozen=True)
class Source:
    """What was generated; ``scalars`` is empty where there is nothing to compute once."""

    scalars: str
    body: str
    rows: tuple[float, ...]
    """Values of the rows c<p>, which follow the scalars among the arguments of ``body``."""


@dataclass
class _Memory:
    """An array that results may be written to, and the node whose value it holds."""

    kind: str
    dtype: str
    holds: int | None = None


class _Emitter:
    def __init__(self, graph: Graph, in_place: tuple[int | None, ...]):
        self.graph, self.in_place = graph, in_place
        self.names: list[str] = []  # of each node's value
        self.once: list[str] = []
        self.lines: list[str] = []
        self.last_lines: list[str] = []
        self.constant: set[int] = set()
        self.known_before: set[int] = set()
        self.rows: dict[str, float] = {}
        self.memory: dict[str, _Memory] = {}
        for number, output in enumerate(graph.outputs):
            node = graph.nodes[output]
            if node.op not in REDUCED:
                self.memory[self.target(number)] = _Memory(node.kind, node.dtype)
        for position, node in enumerate(graph.nodes):
            if node.op == "operand" and f"a{node.value}" in self.memory:
                self.memory[f"a{node.value}"].holds = position

    def source(self) -> Source:
        """The two functions."""
        graph = self.graph
        self.pass_through()
        only_scalars = all(graph.nodes[o].kind == "scalar" and graph.nodes[o].op not in REDUCED for o in graph.outputs)
        for position, node in enumerate(graph.nodes):
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
                line = self.statement(position, node)
                if not only_scalars and self.is_known_before(node):
                    self.known_before.add(position)
                    self.once.append(line)
                else:
                    self.lines.append(line)
        for number, position in enumerate(graph.outputs):
            if graph.nodes[position].op not in (*REDUCED, "operand") and self.names[position] != self.target(number):
                self.last_lines.append(f"copyto({self.target(number)}, {self.names[position]})")
        operands = [f"a{i}" for i in range(len(graph.operands))]
        kept = [line.split(" = ")[0] for line in self.once]
        arguments = [
            *operands,
            *(f"o{n}" for n in range(len(graph.outputs))),
            "shape",
            "index",
            "first",
            *kept,
            *self.rows,
        ]
        scalars = _function("scalars", operands, [*self.once, f"return {', '.join(kept)},"]) if kept else ""
        body = _function("body", arguments, self.lines + self.last_lines)
        return Source(scalars, body, tuple(self.rows.values()))

    def is_known_before(self, node: Node) -> bool:
        """Is this a number made of numbers that are there before the first block?"""
        leaves = [self.graph.nodes[a] for a in node.args if a not in self.known_before]
        return node.kind == "scalar" and all(n.op in ("operand", "const") and n.kind == "scalar" for n in leaves)

    def pass_through(self) -> None:
        """Outputs that are operands are copied before anything is written: another output may replace the operand."""
        for number, position in enumerate(self.graph.outputs):
            node, target = self.graph.nodes[position], self.target(number)
            if node.op != "operand" or target == f"a{node.value}":
                continue
            if self.in_place[number] is None:
                self.lines.append(f"copyto({target}, a{node.value})")
                self.memory[target].holds = position
            else:
                self.lines.append(f"r{number} = a{node.value}.copy()")
                self.last_lines.append(f"copyto({target}, r{number})")

    def target(self, output: int) -> str:
        """The array that holds an output."""
        operand = self.in_place[output]
        return f"o{output}" if operand is None else f"a{operand}"

    def sum_rows(self, position: int, node: Node) -> None:
        """column_sum and total of this block, into o<n>: never over an operand, which later blocks read."""
        axis = "tuple(range(len(shape) - 1))" if node.op == "column_sum" else "None"
        for number, output in enumerate(self.graph.outputs):
            if output == position:
                self.lines.append(f"add.reduce({self.names[node.args[0]]}, axis={axis}, out=o{number})")

    def statement(self, position: int, node: Node) -> str:
        """The line that computes one node."""
        function, names = self.call(node)
        args = ", ".join(names)
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
            if node.kind != "scalar":  # a number is no array to write to
                self.memory[f"v{position}"] = _Memory(node.kind, node.dtype, position)
            return f"v{position} = {function}({args})"
        self.memory[out].holds = position
        self.names[position] = out
        return f"{function}({args}, out={out})"

    def call(self, node: Node) -> tuple[str, list[str]]:
        """Function and arguments of a node, in the form that NumPy runs fastest."""
        names = [self.names[a] for a in node.args]
        if node.op == "where" and names[1] == "0.0":
            return "zero_where", [names[0], names[2]]
        if node.op == "where" and names[2] == "0.0":
            return "keep_where", names[:2]
        if node.op in ("maximum", "minimum") and node.kind == "full":
            names = [self.row(a) if a in self.constant else name for a, name in zip(node.args, names, strict=True)]
        return RENAMED.get(node.op, node.op), names

    def row(self, position: int) -> str:
        """A constant as a row of its own. maximum(x, row) takes half the time of maximum(x, 0.0) on 128 x 512."""
        name = f"c{position}"
        if self.graph.nodes[position].op != "const":
            return self.names[position]
        self.rows[name] = self.graph.nodes[position].value
        return name

    def destination(self, position: int, node: Node) -> str | None:
        """Memory for an elementwise result: its output, or what held a value that is not read after this node."""
        targets = [self.target(n) for n in range(len(self.graph.outputs))]
        own = [targets[n] for n, output in enumerate(self.graph.outputs) if output == position]
        candidates = [*own, *(self.names[a] for a in node.args), *self.memory]
        for name in candidates:
            memory = self.memory.get(name)
            if memory is None or (memory.kind, memory.dtype) != (node.kind, node.dtype):
                continue
            if own and name in targets and name not in own:
                continue  # an output is kept to the end: not where another one belongs
            if memory.holds is None or self.graph.last_use[memory.holds] <= position:
                return name
        return None


def _function(name: str, arguments: list[str], lines: list[str]) -> str:
    return "\n    ".join([f"def {name}({', '.join(arguments)}):", *(lines or ["pass"])]) + "\n"


def compile_source(source: str, name: str, dtype: np.dtype[Any]) -> Callable[..., Any]:
    """The function that a source defines, for one float type."""
    names: dict[str, Any] = {n: getattr(np, n) for n in dir(np) if isinstance(getattr(np, n), np.ufunc)}
    names |= {
        "copyto": np.copyto,
        "inf": np.inf,
        "nan": np.nan,
        "erf": partial(_stored, erf),
        "sigmoid": partial(_stored, sigmoid),
        "random_bits": _random_bits,
    }
    names |= {f.__name__.strip("_"): partial(f, dtype) for f in (_where, _zero_where, _keep_where)}
    exec(compile(source, f"<formula {name}>", "exec"), names)
    function: Callable[..., Any] = names[source[len("def ") : source.index("(")]]
    return function


def _where(dtype: np.dtype[Any], condition: Any, a: Any, b: Any, out: Any = None) -> Any:
    """where(condition, a, b) on the bits; so are the two cases with zero below.

    14 times numpy.where on 128 x 512 random conditions, whose branches are mispredicted; level with it at 8 x 512.
    """
    bits = BITS[dtype.itemsize]
    first, second = np.asarray(a, dtype).view(bits), np.asarray(b, dtype).view(bits)
    changed = np.bitwise_and(np.bitwise_xor(first, second), np.negative(_flag(condition)))
    return np.bitwise_xor(changed, second, None if out is None else out.view(bits)).view(dtype)


def _zero_where(dtype: np.dtype[Any], condition: Any, b: Any, out: Any = None) -> Any:
    """where(condition, 0.0, b)"""
    bits, mask = BITS[dtype.itemsize], np.subtract(_flag(condition), ONE)
    return np.bitwise_and(np.asarray(b, dtype).view(bits), mask, None if out is None else out.view(bits)).view(dtype)


def _keep_where(dtype: np.dtype[Any], condition: Any, a: Any, out: Any = None) -> Any:
    """where(condition, a, 0.0)"""
    bits, mask = BITS[dtype.itemsize], np.negative(_flag(condition))
    return np.bitwise_and(np.asarray(a, dtype).view(bits), mask, None if out is None else out.view(bits)).view(dtype)


def _flag(condition: Any) -> Any:
    return np.asarray(condition).view(np.int8)


def _random_bits(shape: tuple[int, ...], first: int, seed: Any, draw: Any, step: Any) -> Any:
    """32 random bits per element, in native uint32 arithmetic, which wraps."""
    size = int(np.prod(shape))
    element = np.arange(first, first + size, dtype=np.uint64).astype(np.uint32).reshape(shape)
    key0, key1, counter = (np.asarray(v).astype(np.uint32) for v in (seed, draw, step))
    return threefry((key0, key1), (element, counter), np.add, _rotate)[0]


def _rotate(a: Any, bits: int) -> Any:
    return (a << np.uint32(bits)) | (a >> np.uint32(32 - bits))


def _stored(function: Callable[[Any], Any], x: Any, out: Any = None) -> Any:
    """function(x), into ``out`` if given, as ufuncs do it."""
    result = function(np.asarray(x))
    if out is None:
        return result
    out[...] = result
    return out
