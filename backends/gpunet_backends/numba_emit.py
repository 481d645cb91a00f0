"""Python source of a kernel, to be compiled by Numba, from a formula's graph."""

from __future__ import annotations

from dataclasses import dataclass

from gpunet.formula import Graph
from gpunet.formula.shapes import WIDE
from gpunet_backends.array_api import Layout
from gpunet_backends.numba_expressions import NumbaExpressions
from gpunet_backends.schedule import Pass, schedule
from gpunet_backends.source_text import SourceText

SUFFIX = {"float32": "f32", "float64": "f64"}

APART = 256
"""Elements that lie between an array which a loop writes and any other. LLVM leaves vectors out where a store begins
within a few vectors of a load: then running sums are added up in another order, by where the arrays happen to lie."""


@dataclass(frozen=True)
class Argument:
    """How the kernel takes an array: data type, number of axes, and whether it only reads it."""

    name: str
    dtype: str
    ndim: int
    read_only: bool


@dataclass(frozen=True)
class KernelSource:
    """What was generated.

    arguments  the arrays, in order; numbers follow: k where there are rows, block where there are sums, first, last
    flat       one axis: all elements as one row
    sums       the kernel works in blocks of rows, and sums each on its own
    """

    text: str
    arguments: tuple[Argument, ...]
    flat: bool
    sums: bool


def emit(graph: Graph, dtypes: tuple[str, ...], in_place: Layout, strided: frozenset[int]) -> KernelSource:
    """The kernel for operands of these data types.

    in_place  for each output: the operand it replaces, or None
    strided   full operands whose rows lie anywhere in memory: a<i> is that memory, r<i> where each row starts

    a<i>, o<n>  operand i, output n: (rows, k), (rows, 1), (k,) or (); in a flat kernel (elements,) or (). A sum over
                rows gets one partial sum for each block.
    x<i>, y<n>  their current row
    v<p>        value of node p      t<p>  running sum or maximum      b<p>  values of a whole row
    """
    return _Emitter(graph, dtypes, in_place, strided).source()


class _Emitter(SourceText):
    def __init__(self, graph: Graph, dtypes: tuple[str, ...], in_place: Layout, strided: frozenset[int]):
        super().__init__("    ")
        self.graph, self.nodes, self.dtypes, self.in_place, self.strided = graph, graph.nodes, dtypes, in_place, strided
        self.real = next(d for d in dtypes if d in SUFFIX)
        self.plan = schedule(graph)
        self.flat = self.plan.flat and not strided
        self.values = NumbaExpressions(self.nodes, self.flat)
        outputs = list(enumerate(graph.outputs))
        self.column_sums = [(n, p) for n, p in outputs if self.nodes[p].op == "column_sum"]
        self.totals = [(n, p) for n, p in outputs if self.nodes[p].op == "total"]
        self.stored = [(n, p) for n, p in outputs if self.nodes[p].op not in ("column_sum", "total")]
        self.added = sorted({p for _, p in self.totals})  # a total may be several outputs
        self.sums = bool(self.column_sums or self.totals)

    # ---- the whole

    def source(self) -> KernelSource:
        """Arguments, prologue, and the loops."""
        arguments = self.arguments()
        numbers = ["k"] * (not self.flat) + ["block"] * self.sums + ["first", "last"]
        self.prologue()
        if self.sums:
            self.open("for start in range(first, last, block):")
            self.write("part, stop = start // block, min(start + block, last)")
            self.open_sums()
        elif self.flat:
            self.write("start, stop = first, last")
        if self.flat:
            self.views("[start:stop]")
            self.run(self.plan.rows[0], "size")
        else:
            self.open(f"for i in range({'start, stop' if self.sums else 'first, last'}):")
            self.views("[i]")
            self.row()
            self.close()
        if self.sums:
            for n, p in self.totals:
                self.write(f"o{n}[part] = real(t{p})")
        head = f"def kernel({', '.join([a.name for a in arguments] + numbers)}):"
        return KernelSource("\n".join([self.header(arguments), head, *self.lines, ""]), arguments, self.flat, self.sums)

    def header(self, arguments: tuple[Argument, ...]) -> str:
        """Docstring and imports."""
        suffix = SUFFIX[self.real]
        about = "\n".join(f"{a.name}  {a.dtype}, {a.ndim} axes{', read only' * a.read_only}" for a in arguments)
        names = self.values.imports(suffix)
        lines = [f'"""{self.graph.name}\n\n{about}\n"""', "", "import math", "", "import numpy as np", ""]
        lines += [f"from gpunet_backends.numba_math import {names}", ""] if names else []
        return "\n".join(
            [*lines, f"real, u32 = np.{self.real}, np.uint32", "inf, nan = real(np.inf), real(np.nan)", "", ""]
        )

    def arguments(self) -> tuple[Argument, ...]:
        """Operands that are used, then outputs that replace none."""
        axes = {"full": 1 if self.flat else 2, "row": 2, "col": 1, "scalar": 0}
        found = []
        for i, operand in enumerate(self.graph.operands):
            if operand is None or i not in self.graph.used:
                continue
            ndim = 1 if i in self.strided else axes[operand.kind]
            found.append(Argument(f"a{i}", self.dtypes[i], ndim, i not in self.in_place))
            if i in self.strided:
                found.append(Argument(f"r{i}", "int64", 1, True))
        for n, p in enumerate(self.graph.outputs):
            if self.in_place[n] is None:
                node = self.nodes[p]
                ndim = 1 if node.op in ("column_sum", "total") else axes[node.kind]
                found.append(Argument(f"o{n}", "bool" if node.dtype == "bool" else self.real, ndim, False))
        return tuple(found)

    def prologue(self) -> None:
        """Numbers, row buffers, and what is computed once."""
        for i, node in enumerate(self.nodes):
            if node.op == "operand" and node.kind == "scalar":
                self.write(f"v{i} = a{node.value}[()]")
        for i in self.plan.kept():
            kind = "u32" if self.nodes[i].op == "random_bits" else "real"
            self.write(f"b{i} = np.empty(k + {2 * APART}, {kind})[{APART} : {APART} + k]")
        for one in self.plan.once:
            self.run(one, "k")

    # ---- loops

    def row(self) -> None:
        """The passes of one row."""
        if any(n.op == "random_bits" for n in self.nodes):
            self.write("row_start = u32(i * k)")
        for i, node in enumerate(self.nodes):
            if node.op == "operand" and node.kind == "row":
                self.write(f"v{i} = x{node.value}[0]")
        for one in self.plan.rows:
            self.run(one, "k")
        for n, p in self.stored:
            if not WIDE[self.nodes[p].kind]:
                self.write(f"{self.target(n)}[0] = {self.values.ref(p)}")

    def run(self, one: Pass, length: str) -> None:
        """What a pass computes before its loop, the loop, and the ends of its reductions."""
        final = one is self.plan.rows[-1]
        for i in one.narrow:
            self.write(f"v{i} = {self.values.value(self.nodes[i])}")
        for i in one.reductions:
            self.write(f"t{i} = {self.values.use('LOWEST') if self.nodes[i].op == 'max' else 'real(0)'}")
        sums = self.added if final else []
        for p in sums:
            if WIDE[self.nodes[self.nodes[p].args[0]].kind]:
                self.write(f"s{p} = real(0)")
        if one.wide or one.loads:
            self.open("for j in range(size):" if length == "size" else "for j in range(k):")
            self.element(one, final)
            self.close()
        for i in one.reductions:
            op = self.nodes[i].op
            end = f"{self.values.use('unkey')}(t{i})" if op == "max" else f"t{i} / real(k)" if op == "mean" else f"t{i}"
            self.write(f"v{i} = {end}")
        for p in sums:
            value = self.nodes[p].args[0]
            self.write(f"t{p} += {f's{p}' if WIDE[self.nodes[value].kind] else self.values.ref(value)}")

    def element(self, one: Pass, final: bool) -> None:
        """The body of a loop: values, running sums, and in the last pass what is stored."""
        for i in one.loads:
            self.write(f"v{i} = b{i}[j]")
        for i in one.wide:
            node = self.nodes[i]
            if node.op == "operand":
                view = f"x{node.value}" if node.kind == "full" else f"a{node.value}"
                self.write(f"v{i} = {view}[j]")
            else:
                self.write(f"v{i} = {'np.int32(j)' if node.op == 'index' else self.values.value(node)}")
            if i in one.keeps:
                self.write(f"b{i}[j] = v{i}")
        for i in one.reductions:
            x = self.values.ref(self.nodes[i].args[0])
            if self.nodes[i].op == "max":
                self.write(f"t{i} = {self.values.use('max_int')}(t{i}, {self.values.use('key')}({x}))")
            else:
                self.write(f"t{i} = {self.values.use('add')}(t{i}, {x})")
        if not final:
            return
        for n, p in self.column_sums:
            self.write(f"y{n}[j] += {self.values.ref(self.nodes[p].args[0])}")
        for p in self.added:
            value = self.nodes[p].args[0]
            if WIDE[self.nodes[value].kind]:
                self.write(f"s{p} = {self.values.use('add')}(s{p}, {self.values.ref(value)})")
        for n, p in self.stored:
            if WIDE[self.nodes[p].kind]:
                self.write(f"{self.target(n)}[j] = {self.values.ref(p)}")

    def open_sums(self) -> None:
        """This block's sums over rows start at zero; totals of rows are added up in float64."""
        for n, _ in self.column_sums:
            self.write(f"y{n} = o{n}[part * k : part * k + k]")
            self.open("for j in range(k):")
            self.write(f"y{n}[j] = real(0)")
            self.close()
        for p in self.added:
            self.write(f"t{p} = 0.0")

    def views(self, cut: str) -> None:
        """x<i> and y<n>: the part of each array that varies over rows which the next loop works on."""
        for i, operand in enumerate(self.graph.operands):
            if operand is None or i not in self.graph.used:
                continue
            if i in self.strided:
                self.write(f"x{i} = a{i}[r{i}[i] : r{i}[i] + k]")
            elif operand.kind in ("full", "row"):
                self.write(f"x{i} = a{i}{cut}")
        for n, p in self.stored:
            if self.in_place[n] is None and self.nodes[p].kind in ("full", "row"):
                self.write(f"y{n} = o{n}{cut}")
        if self.flat:
            self.write("size = stop - start")

    def target(self, output: int) -> str:
        """Where an output's current row is stored."""
        operand = self.in_place[output]
        return f"y{output}" if operand is None else f"x{operand}"
