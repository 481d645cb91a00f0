"""Runners: the function that checks one call signature, makes what is fresh, and calls the kernel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpunet.backend import Array, Shape
from gpunet.formula import Graph, Operand
from gpunet_backends.blocks import blocks
from gpunet_backends.numba_build import kernel
from gpunet_backends.numba_emit import APART, emit
from gpunet_backends.threads import run_parts

empty = np.empty
"""A name of this module, so that a test can count the arrays that runners make."""

Run = Callable[..., Any]
"""(operands, out, miss) -> results; calls miss(operands, out) when they are not what it was made for."""


class Runner:
    """Writes the runner of one call signature: checks, guards against overlap, fresh arrays, the call, the rest.

    a<i>, d<n>  operand i, and the array that holds output n       p<n>  partial sums, one for each block
    e<i>, f<n>  what owns the memory of an operand, of a target    all other names are constants of the signature
    """

    def __init__(
        self,
        graph: Graph,
        dtype: str,
        full: Shape,
        operands: Sequence[Array],
        targets: Sequence[Array | None],
        layout: Sequence[int | None],
        out: Any,
    ):
        self.graph, self.dtype, self.full, self.operands, self.targets = graph, dtype, full, operands, targets
        self.single_out = None if out is None else type(out) is not tuple
        self.k, self.rows = full[-1], math.prod(full[:-1])
        self.places = [None] * len(targets) if out is None else list(layout)
        self.shapes = {"full": full, "row": (*full[:-1], 1), "col": full[-1:], "scalar": ()}
        self.names: dict[str, Any] = {"empty": empty, "overlap": np.may_share_memory}
        self.checks: list[str] = []
        self.guards: list[str] = []
        self.lines: list[str] = []
        self.after: list[str] = []
        self.direct = tuple(self.place_directly(n) for n in range(len(targets)))
        used = [(i, o) for i, o in enumerate(graph.operands) if o is not None and i in graph.used]
        self.strided = frozenset(i for i, o in used if self.is_strided(i, o))
        types = tuple(a.dtype.name for a in operands)
        self.source = emit(graph, types, self.direct, self.strided)
        self.blocks = blocks(graph, full, flat=self.source.flat, sums=self.source.sums)

    # ---- which way each array goes

    def place_directly(self, n: int) -> int | None:
        """The operand that the kernel itself may overwrite with output n; else the result is copied there."""
        place, node = self.places[n], self.graph.nodes[self.graph.outputs[n]]
        if place is None or node.op in ("column_sum", "total") or place not in self.graph.used:
            return None
        operand, array = self.graph.operands[place], self.operands[place]
        fits = operand is not None and operand.kind == node.kind and array.shape == self.shapes[node.kind]
        ready = array.flags.c_contiguous and array.flags.aligned and array.flags.writeable
        return place if fits and ready and array.dtype == self.output_type(n) else None

    def is_strided(self, i: int, operand: Operand) -> bool:
        """Are rows whole, but not one behind the other?"""
        array = self.operands[i]
        if operand.kind != "full" or i in self.direct or not array.flags.aligned:
            return False
        size, steps = array.itemsize, array.strides
        rows_are_whole = array.shape[-1:] == (self.k,) and (steps[-1] == size or self.k == 1)
        return rows_are_whole and not self.is_simple(array) and all(s >= 0 and s % size == 0 for s in steps)

    def is_simple(self, array: Array) -> bool:
        """Contiguous, and of the whole shape."""
        return bool(array.flags.c_contiguous and array.shape == self.full)

    def output_type(self, n: int) -> Any:
        """Data type of an output."""
        is_bool = self.graph.nodes[self.graph.outputs[n]].dtype == "bool"
        return np.dtype(bool if is_bool else self.dtype)

    def output_shape(self, n: int) -> Shape:
        """Shape of an output."""
        return self.shapes[self.graph.nodes[self.graph.outputs[n]].kind]

    # ---- writing

    def compiled(self) -> Run | None:
        """Compile the kernel, write the function that calls it."""
        for n, target in enumerate(self.targets):
            if target is not None and (target.shape != self.output_shape(n) or target.dtype != self.output_type(n)):
                return None  # to be refused
        self.names["kernel"] = kernel(self.source)
        arguments = {f"a{i}": self.operand(i, operand) for i, operand in enumerate(self.graph.operands)}
        for n in range(len(self.targets)):
            arguments[f"o{n}"] = self.output(n)
        arguments |= {f"r{i}": f"starts{i}" for i in self.strided}
        self.check_overlap()
        text = self.text([arguments[a.name] for a in self.source.arguments])
        exec(compile(text, f"<runner of {self.graph.name}>", "exec"), self.names)
        run: Run = self.names["run"]
        return run

    def operand(self, i: int, operand: Operand | None) -> str:
        """The check of one operand; -> what the kernel gets."""
        array = self.operands[i]
        self.names |= {f"s{i}": array.shape, f"q{i}": array.dtype}
        self.checks.append(f"a{i}.shape != s{i}")
        self.checks.append(f"a{i}.dtype != q{i}")  # the kernel itself would take another byte order
        if operand is None or i not in self.graph.used:
            return ""
        shape = self.kernel_shape(operand.kind)
        contiguous = array.flags.c_contiguous and array.flags.aligned
        if i not in self.strided and contiguous and array.shape == shape:
            return f"a{i}"  # the kernel takes no other layout
        self.names[f"t{i}"] = array.strides
        self.checks.append(f"a{i}.strides != t{i}")
        if i in self.strided:
            flat, starts = f"flat{i}", self.row_starts(i)
            self.names |= {flat: _flat_memory((int(starts.max()) + self.k,), (array.itemsize,)), f"starts{i}": starts}
        elif contiguous and array.size == math.prod(shape):
            self.names[f"k{i}"] = shape
            return f"a{i}.reshape(k{i})"
        else:
            flat = f"copy{i}"
            self.names[flat] = _copied(self.shapes[operand.kind], shape)
        return f"{flat}(a{i})"

    def kernel_shape(self, kind: str) -> Shape:
        """The shape in which the kernel takes an array of this kind."""
        if self.source.flat and kind == "full":
            return (math.prod(self.full),)
        return {"full": (self.rows, self.k), "row": (self.rows, 1), "col": (self.k,), "scalar": ()}[kind]

    def row_starts(self, i: int) -> Any:
        """Where each row of a strided operand begins, in elements."""
        spread = np.broadcast_to(self.operands[i], self.full)
        starts = np.zeros(self.full[:-1], np.int64)
        for axis, step in enumerate(spread.strides[:-1]):
            along = np.arange(self.full[axis]) * (step // spread.itemsize)
            starts += along.reshape(-1, *[1] * (len(self.full) - 2 - axis))
        return starts.reshape(-1)

    def output(self, n: int) -> str:
        """Where output n goes; -> what the kernel gets, or nothing if it replaces an operand."""
        node, place, target = self.graph.nodes[self.graph.outputs[n]], self.places[n], self.targets[n]
        if target is not None:
            self.check_target(n)
        if self.direct[n] is not None:
            self.lines.append(f"d{n} = a{place}")
            return ""
        self.names |= {f"S{n}": self.output_shape(n), f"T{n}": self.output_type(n)}
        sums = node.op in ("column_sum", "total")
        ready = target is not None and target.flags.c_contiguous and target.flags.aligned and place is None
        if ready and (node.op != "total"):
            self.lines.append(f"d{n} = {self.given(n)}")
            final = f"d{n}"
        elif node.op == "total":
            final = ""
        else:
            self.lines.append(f"d{n} = {self.fresh(n)}")
            final = f"d{n}"
        result = final
        if sums:
            result = self.sum_output(n, node.op, final)
        elif self.kernel_shape(node.kind) != self.output_shape(n):
            self.names[f"K{n}"] = self.kernel_shape(node.kind)
            result = f"{final}.reshape(K{n})"
        if target is not None and not (ready and result.startswith(f"d{n}")):
            self.checks.append(f"not {self.given(n)}.flags.writeable")  # else the kernel refuses it
        if target is not None and not (ready and node.op != "total"):
            self.after += [f"{self.given(n)}[...] = d{n}", f"d{n} = {self.given(n)}"]
        return result

    def fresh(self, n: int) -> str:
        """New memory for an output; beside running sums it lies apart from all else, for the same bits each time."""
        if not any(node.op in ("sum", "mean", "total") for node in self.graph.nodes):
            return f"empty(S{n}, T{n})"
        size = math.prod(self.output_shape(n))
        self.names |= {f"M{n}": size + 2 * APART, f"A{n}": slice(APART, APART + size)}
        return f"empty(M{n}, T{n})[A{n}].reshape(S{n})"

    def sum_output(self, n: int, op: str, final: str) -> str:
        """Partial sums of the blocks, and how they become one."""
        width = self.k if op == "column_sum" else 1
        if self.blocks.count == 1 and op == "column_sum":
            return final
        self.names |= {f"P{n}": self.blocks.count * width, f"W{n}": (self.blocks.count, width)}
        self.names |= {"reduce": np.add.reduce, "quiet": np.errstate}
        self.lines.append(f"p{n} = empty(P{n}, T{n})")
        if op == "column_sum":
            self.after.append(f"with quiet(all='ignore'): reduce(p{n}.reshape(W{n}), 0, None, d{n})")
        elif self.blocks.count == 1:
            self.after.append(f"d{n} = p{n}.reshape(())")
        else:
            self.names["asarray"] = np.asarray
            self.after.append(f"with quiet(all='ignore'): d{n} = asarray(reduce(p{n}))")
        return f"p{n}"

    def given(self, n: int) -> str:
        """The caller's target of output n."""
        return "out" if self.single_out else f"out[{n}]"

    def check_target(self, n: int) -> None:
        """The call must bring the same kind of target."""
        target, place = self.targets[n], self.places[n]
        assert target is not None
        if place is not None:
            self.checks.append(f"{self.given(n)} is not a{place}")
        else:
            self.names |= {f"s_{n}": target.shape, f"d_{n}": target.dtype}
            self.checks += [f"{self.given(n)} is None", f"{self.given(n)}.shape != s_{n}"]
            self.checks.append(f"{self.given(n)}.dtype != d_{n}")
        reshaped = self.kernel_shape(self.graph.nodes[self.graph.outputs[n]].kind) != target.shape
        if reshaped and target.flags.c_contiguous:  # else writing to a reshaped copy would be lost
            self.checks.append(f"not {self.given(n)}.flags.c_contiguous")
        if not target.flags.c_contiguous:
            self.names[f"t_{n}"] = target.strides
            self.checks.append(f"{self.given(n)}.strides != t_{n}")

    def check_overlap(self) -> None:
        """Targets share memory with no other operand or target; the owner of the memory decides the usual case."""
        owned = [(f"a{i}", i) for i in range(len(self.operands))]
        targets = [(self.given(n), self.places[n], n) for n, t in enumerate(self.targets) if t is not None]
        if not targets:
            return
        for name, i in owned:
            self.guards.append(f"e{i} = {name} if {name}.base is None else {name}.base")
        owners, pairs = {f"e{i}": name for name, i in owned}, []
        for name, place, n in targets:
            owner = f"e{place}"
            if place is None:
                owner = f"f{n}"
                self.guards.append(f"{owner} = {name} if {name}.base is None else {name}.base")
            pairs += [(owner, other, name, array) for other, array in owners.items() if other != owner]
            owners[owner] = name
        if not pairs:
            return
        clash = " or ".join(f"({owner} is {other} and overlap({a}, {b}))" for owner, other, a, b in pairs)
        meet = " or ".join(f"overlap({a}, {b})" for _, _, a, b in pairs)
        self.guards += [
            "try:",
            f"    known = {' is '.join(f'{owner}.base' for owner in owners)} is None",
            "except AttributeError:",
            "    known = False",  # memory of something else, which several arrays may own
            f"if {clash} or not known and ({meet}): return miss(operands, out)",
        ]

    def text(self, arguments: list[str]) -> str:
        """The runner's source."""
        count, cuts = len(self.operands), self.blocks.cuts
        numbers = [] if self.source.flat else [str(self.k)]
        numbers += [str(self.blocks.size)] * self.source.sums
        call = f"kernel({', '.join([*arguments, *numbers, '0', str(self.blocks.length)])})"
        if len(cuts) > 1:
            self.names |= {"cuts": cuts, "run_parts": run_parts}
            call = f"run_parts(kernel, ({', '.join([*arguments, *numbers])},), cuts)"
        names = ", ".join(f"a{i}" for i in range(count))
        expected = {None: "out is not None", True: "type(out) is tuple or out is None"}.get(
            self.single_out, f"type(out) is not tuple or len(out) != {len(self.targets)}"
        )
        first = [f"len(operands) != {count}", expected]
        fresh = [f"out[{n}] is not None" for n, t in enumerate(self.targets) if t is None and self.single_out is False]
        results = ", ".join(f"d{n}" for n in range(len(self.targets)))
        lines = [
            f"if {' or '.join(first)}: return miss(operands, out)",
            f"{names}, = operands",
            f"if {' or '.join(fresh + self.checks)}: return miss(operands, out)",
            *self.guards,
            *self.lines,
            "try:",
            f"    {call}",
            "except TypeError:",  # another data type or layout
            "    return miss(operands, out)",
            *self.after,
            f"return {results}" if self.graph.single else f"return ({results},)",
        ]
        return "\n    ".join(["def run(operands, out, miss):", *lines]) + "\n"


def _flat_memory(shape: Shape, strides: Shape) -> Callable[[Array], Array]:
    """array -> all of its memory, from its first element on."""
    return lambda array: np.lib.stride_tricks.as_strided(array, shape, strides, writeable=False)


def _copied(shape: Shape, final: Shape) -> Callable[[Array], Array]:
    """array -> a contiguous, aligned copy of a shape."""

    def copied(array: Array) -> Array:
        whole = array if array.size == math.prod(shape) else np.broadcast_to(array, shape)
        return np.array(whole, order="C").reshape(final)

    return copied
