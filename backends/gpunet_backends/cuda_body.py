"""What one thread of a CUDA kernel does: load V elements, compute, add up, store."""

from __future__ import annotations

from gpunet.formula.shapes import REDUCED, WIDE
from gpunet_backends.cuda_expressions import CudaExpressions
from gpunet_backends.cuda_stages import Stage
from gpunet_backends.cuda_variant import Variant
from gpunet_backends.schedule import Pass, schedule
from gpunet_backends.source_text import SourceText


class Body(SourceText):
    """Lines of a kernel.

    x<i>, y<n>  V elements of operand i, of output n      v<p>  value of node p
    t<p>        running sum or maximum                    c<p>  V running sums over rows
    """

    def __init__(self, stage: Stage, variant: Variant):
        super().__init__("  ")
        self.stage, self.variant, self.nodes, self.in_place = stage, variant, stage.graph.nodes, variant.in_place
        outputs = list(enumerate(stage.graph.outputs))
        self.column_sums = [(n, p) for n, p in outputs if self.nodes[p].op == "column_sum"]
        self.totals = [(n, p) for n, p in outputs if self.nodes[p].op == "total"]
        self.stored = [(n, p) for n, p in outputs if self.nodes[p].op not in REDUCED]
        self.added = list(dict.fromkeys(p for _, p in self.totals))  # a sum may be several outputs
        self.column_added = list(dict.fromkeys(p for _, p in self.column_sums))
        self.plan = schedule(stage.graph, keep=frozenset(), hoist=not stage.rows)
        self.flat = self.plan.flat and not variant.strided and not stage.rows
        self.values = CudaExpressions(self.nodes, variant.real, variant.types)

    def scalars(self) -> None:
        """Operands that vary over nothing, and what is computed from them alone."""
        for i, node in enumerate(self.nodes):
            if node.op == "operand" and node.kind == "scalar":
                self.write(f"const {self.type(i)} v{i} = load<{self.type(i)}>(a{node.value});")
        for one in self.plan.once:
            for i in one.narrow:
                self.define(i)

    def row_values(self, condition: str = "") -> None:
        """Operands that vary over rows only; in a map what is computed from them."""
        for i, node in enumerate(self.nodes):
            if node.op == "operand" and node.kind == "row":
                value = f"load<{self.type(i)}>(a{node.value} + row)"
                value = f"{condition} ? {value} : ({self.type(i)})0" if condition else value
                self.write(f"const {self.type(i)} v{i} = {value};")
        if not self.stage.rows:
            for i in self.plan.rows[0].narrow:
                self.define(i)

    def elements(self, one: Pass, final: bool) -> None:
        """V elements: load, compute, add up, and in the last pass store."""
        loads = [i for i in one.wide if self.nodes[i].op == "operand"]
        stores = [(n, p) for n, p in self.stored if final and (WIDE[self.nodes[p].kind] or not self.stage.rows)]
        for i in loads:
            operand = self.nodes[i].value
            at = (
                "j"
                if self.nodes[i].kind == "col"
                else f"row * s{operand} + j"
                if operand in self.variant.strided
                else "e"
            )
            self.write(f"{self.type(i)} x{i}[V];")
            self.write(f"load<V>(a{operand} + {at}, left, x{i});")
        for n, p in stores:
            self.write(f"{self.type(p)} y{n}[V];")
        self.lines.append("#pragma unroll")
        self.open("for (int u = 0; u < V; ++u) {")
        for i in one.wide:
            if i in loads:
                self.write(f"const {self.type(i)} v{i} = x{i}[u];")
            else:
                self.define(i)
        for i in one.reductions:
            self.write(f"t{i} = {self.operation(i)}::of(t{i}, {self.ref(self.nodes[i].args[0])});")
        if final:
            for p in self.column_added:
                self.write(f"c{p}[u] += {self.ref(self.nodes[p].args[0])};")
            for p in self.added:
                value = self.nodes[p].args[0]
                if WIDE[self.nodes[value].kind]:
                    self.write(f"if (u < left) t{p} += {self.ref(value)};")
        for n, p in stores:
            self.write(f"y{n}[u] = {self.ref(p)};")
        self.close()
        for n, _ in stores:
            self.write(f"store<V>({self.target(n)} + e, left, y{n});")

    def define(self, i: int) -> None:
        """The value of one node."""
        node = self.nodes[i]
        value = "(int)(j + u)" if node.op == "index" else self.values.value(node)
        self.write(f"const {self.type(i)} v{i} = {value};")

    def operation(self, i: int) -> str:
        """The reduction of a node."""
        return "Max" if self.nodes[i].op == "max" else "Sum"

    def type(self, i: int) -> str:
        """The C++ type of a value."""
        return self.values.type(self.nodes[i])

    def ref(self, i: int) -> str:
        """A value or constant."""
        return self.values.ref(i)

    def target(self, n: int) -> str:
        """Where output n is stored."""
        operand = self.in_place[n]
        return f"o{n}" if operand is None else f"a{operand}"

    def close(self, line: str = "}") -> None:
        """End the block."""
        super().close(line)
