"""CUDA source of a kernel from a formula's graph: three ways to spread the elements over threads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gpunet.formula.shapes import WIDE
from gpunet_backends.cuda_body import Body
from gpunet_backends.cuda_stages import Stage
from gpunet_backends.cuda_variant import TYPES, Variant
from gpunet_backends.schedule import Pass

BLOCK, COLUMN_BLOCK, LANES = 256, 512, 8
"""Threads of a block; of one that sums over rows, which has 8 next to each other, 64 rows at a time."""


@dataclass(frozen=True)
class CudaSource:
    """What was generated.

    name       of the kernel; what adds up its partial sums is called <name>_columns and <name>_totals
    arguments  arrays a<i>, o<n>, partial sums p<n>, then row strides s<i> and other numbers
    columns    arguments of what adds up the partial sums over rows; empty if there are none
    totals     arguments of what adds up those over everything
    """

    text: str
    name: str
    arguments: tuple[str, ...]
    columns: tuple[str, ...]
    totals: tuple[str, ...]


@cache
def prelude() -> str:
    """What all kernels are made of."""
    return Path(__file__).with_name("cuda_prelude.cuh").read_text()


def emit(stage: Stage, variant: Variant) -> CudaSource:
    """The kernel, and those that add up its partial sums.

    a<i>, o<n>  operand i, output n         x<i>, y<n>  V elements of them
    p<n>        one partial sum for each block of threads
    v<p>        value of node p             t<p>        running sum or maximum
    """
    return _Emitter(stage, variant).source()


class _Emitter(Body):
    # ---- the whole

    def source(self) -> CudaSource:
        """Types, kernel, second stages."""
        if self.stage.rows:
            numbers, threads, body = ["rows", "k"], BLOCK, self.row_kernel
        elif self.column_sums:
            numbers, threads, body = ["rows", "k", "band"], COLUMN_BLOCK, self.column_kernel
        else:
            numbers, threads, body = ["n"] if self.flat else ["n", "k"], BLOCK, self.map_kernel
        body()
        arguments = self.arguments()
        parameters = [*arguments.values(), *(f"const idx {name}" for name in numbers)]
        name = "gpunet_" + re.sub(r"\W+", "_", self.stage.graph.name, flags=re.ASCII)[:60]
        columns, column_kernel = self.second_stage(f"{name}_columns", self.column_sums, ["parts", "k"])
        totals, total_kernel = self.second_stage(f"{name}_totals", self.totals, ["parts"])
        text = "\n".join(
            [
                f"// {self.stage.graph.name}",
                prelude(),
                f"typedef {self.variant.real} real;",
                f"typedef unsigned {'long long' * self.variant.large or 'int'} idx;",
                f"enum {{ V = {self.variant.vector}, WIDTH = {self.variant.width} }};",
                f"enum {{ BLOCK = {threads}, LANES = {LANES} }};",
                "",
                f'extern "C" __global__ void __launch_bounds__({threads}) {name}({", ".join(parameters)}) {{',
                *self.lines,
                "}",
                *column_kernel,
                *total_kernel,
                "",
            ]
        )
        return CudaSource(text, name, (*arguments, *numbers), columns, totals)

    def arguments(self) -> dict[str, str]:
        """Name and declaration of arrays and strides: operands that are used, then outputs that replace none."""
        found = {}
        replaced = [i for i in self.in_place if i is not None]
        for i in sorted({*self.stage.graph.used, *replaced}):
            kind = TYPES[self.variant.types[i]]
            found[f"a{i}"] = f"{kind}* a{i}" if i in replaced else f"const {kind}* __restrict__ a{i}"
        for n, p in self.stored:
            if self.in_place[n] is None:
                found[f"o{n}"] = f"{self.output_type(n, p)}* __restrict__ o{n}"
        for n, _ in (*self.column_sums, *self.totals):
            found[f"p{n}"] = f"real* __restrict__ p{n}"
        return found | {f"s{i}": f"const long long s{i}" for i in sorted(self.variant.strided)}

    def output_type(self, n: int, p: int) -> str:
        """Narrow values for a later stage keep the arithmetic's precision."""
        if self.nodes[p].dtype == "bool":
            return "bool"
        handed_on = self.stage.outputs[n] >= self.stage.own
        return "real" if handed_on else TYPES[self.variant.storage]

    def second_stage(
        self, name: str, sums: list[tuple[int, int]], numbers: list[str]
    ) -> tuple[tuple[str, ...], list[str]]:
        """The kernel that adds up partial sums: its arguments, its lines."""
        if not sums:
            return (), []
        names = [f"{letter}{n}" for n, _ in sums for letter in "po"]
        parameters = [f"const real* __restrict__ p{n}, real* __restrict__ o{n}" for n, _ in sums]
        parameters += [f"const unsigned {number}" for number in numbers]
        is_columns = sums is self.column_sums
        threads, block = (COLUMN_BLOCK, "y") if is_columns else (BLOCK, "x")
        shared = "real shared[16][32]" if is_columns else "double shared[8]"
        call = "sum_parts" if is_columns else "sum_total"
        lines = [
            "",
            f'extern "C" __global__ void __launch_bounds__({threads}) {name}({", ".join(parameters)}) {{',
            f"  __shared__ {shared};",
        ]
        for at, (n, _) in enumerate(sums):
            lines.append(f"  if (blockIdx.{block} == {at}) {call}(p{n}, o{n}, {', '.join(numbers)}, shared);")
        return (*names, *numbers), [*lines, "}"]

    # ---- one thread for every V elements

    def map_kernel(self) -> None:
        """All elements, in steps of the whole grid."""
        self.scalars()
        self.start_totals()
        self.write("const idx step = (idx)gridDim.x * (BLOCK * V);")
        self.open("for (idx e = ((idx)blockIdx.x * BLOCK + threadIdx.x) * V; e < n; e += step) {")
        self.write("const unsigned left = n - e < V ? (unsigned)(n - e) : V;")
        if not self.flat:
            self.write("const idx row = e / k, j = e - row * k;")
        self.row_values()
        self.elements(self.plan.rows[0], final=True)
        self.close()
        self.finish_totals("blockIdx.x", BLOCK)

    # ---- each group of WIDTH threads one row

    def row_kernel(self) -> None:
        """Passes along the row. Threads without a row take part in the reductions."""
        self.write("const unsigned lane = threadIdx.x % WIDTH;")
        self.write("const idx row = (idx)blockIdx.x * (BLOCK / WIDTH) + threadIdx.x / WIDTH;")
        self.write("const bool there = row < rows;")
        self.write("const idx length = there ? k : 0;")
        self.write("const unsigned left = V;")
        self.write("__shared__ real shared[BLOCK / 32];")
        self.scalars()
        self.row_values(condition="there")
        self.start_totals()
        for one in self.plan.rows:
            self.row_pass(one, final=one is self.plan.rows[-1])
        for n, p in self.stored:
            kind = self.nodes[p].kind
            if not WIDE[kind]:
                where, at = ("there", "row") if kind == "row" else ("row == 0", "0")
                self.write(f"if ({where} && lane == 0) store({self.target(n)} + {at}, {self.ref(p)});")
        for p in self.added:
            value = self.nodes[p].args[0]
            if not WIDE[self.nodes[value].kind]:
                self.write(f"if (there && lane == 0) t{p} += {self.ref(value)};")
        self.finish_totals("blockIdx.x", BLOCK)

    def row_pass(self, one: Pass, final: bool) -> None:
        """What is computed before the loop, the loop, and its reductions."""
        for i in one.narrow:
            self.define(i)
        for i in one.reductions:
            self.write(f"real t{i} = {self.operation(i)}::start<real>();")
        if one.wide:
            self.open("for (idx j = lane * V; j < length; j += WIDTH * V) {")
            self.write("const idx e = row * k + j;")
            self.elements(one, final)
            self.close()
        for i in one.reductions:
            mean = " / (real)k" if self.nodes[i].op == "mean" else ""
            self.write(f"const real v{i} = reduce<{self.operation(i)}, WIDTH>(t{i}, shared){mean};")

    # ---- each block LANES V columns and a band of rows

    def column_kernel(self) -> None:
        """Every thread sums V columns over some rows of the band; warps add up theirs, then the block in order."""
        self.write("const unsigned lane = threadIdx.x % LANES, warp = threadIdx.x / 32, left = V;")
        self.write("const idx j = ((idx)blockIdx.x * LANES + lane) * V, first = (idx)blockIdx.y * band;")
        self.write("const idx last = rows - first < band ? rows : first + band;")
        self.write("__shared__ real shared[BLOCK / 32][LANES * V];")
        self.scalars()
        self.start_totals()
        for p in self.column_added:
            self.write(f"real c{p}[V] = {{}};")
        self.open("for (idx row = first + threadIdx.x / LANES; row < last && j < k; row += BLOCK / LANES) {")
        self.write("const idx e = row * k + j;")
        self.row_values()
        self.elements(self.plan.rows[0], final=True)
        self.close()
        for n, p in self.column_sums:
            self.write("__syncthreads();")
            self.open("for (int u = 0; u < V; ++u) {")
            self.write(f"const real sum = reduce_across<Sum, LANES>(c{p}[u]);")
            self.write("if (threadIdx.x % 32 < LANES) shared[warp][lane * V + u] = sum;")
            self.close()
            self.write("__syncthreads();")
            self.open("for (unsigned column = threadIdx.x; column < LANES * V; column += BLOCK) {")
            self.write("const idx at = (idx)blockIdx.x * (LANES * V) + column;")
            self.write("real sum = shared[0][column];")
            self.write("for (int i = 1; i < BLOCK / 32; ++i) sum += shared[i][column];")
            self.write(f"if (at < k) p{n}[(unsigned long long)blockIdx.y * k + at] = sum;")
            self.close()
        self.finish_totals("blockIdx.y * gridDim.x + blockIdx.x", COLUMN_BLOCK)

    # ---- sums over everything

    def start_totals(self) -> None:
        """Each thread's own sum; a total may be several outputs."""
        for p in self.added:
            self.write(f"real t{p} = 0;")

    def finish_totals(self, block: str, threads: int) -> None:
        """The block's sums."""
        if self.totals and not self.stage.rows:
            self.write(f"__shared__ real totals[{threads // 32}];")
        shared = "shared" if self.stage.rows else "totals"
        for p in self.added:
            self.write(f"t{p} = reduce<Sum, {threads}>(t{p}, {shared});")
        for n, p in self.totals:
            self.write(f"if (threadIdx.x == 0) p{n}[{block}] = t{p};")
