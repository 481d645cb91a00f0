"""cuBLASLt on host memory: what ``cublas_lt_library.load`` returns, for a machine without a GPU.

Where the library returns a status, this raises what ``cublas_lt_library.bind`` makes of it; where it would crash or
compute nonsense, an assertion fails. Numbers and sizes are those of cublasLt.h. What it cannot show: speed, the real
choice of algorithms, their order of summing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import c_int32, c_int64, c_uint32, c_uint64
from functools import partial
from typing import Any, NamedTuple

import numpy as np

R_32F, R_64F, R_16F, R_16BF = 0, 1, 2, 14
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77
SCHEME_COMPUTE_TYPE, SCHEME_MASK = 2, 7

ATTRIBUTES: dict[str, dict[str, tuple[int, Any]]] = {
    "MatmulDesc": {
        "COMPUTE_TYPE": (0, c_int32),
        "SCALE_TYPE": (1, c_int32),
        "TRANSA": (3, c_int32),
        "TRANSB": (4, c_int32),
    },
    "MatrixLayout": {
        "TYPE": (0, c_uint32),
        "ORDER": (1, c_int32),
        "ROWS": (2, c_uint64),
        "COLS": (3, c_uint64),
        "LD": (4, c_int64),
        "BATCH_COUNT": (5, c_int32),
        "STRIDED_BATCH_OFFSET": (6, c_int64),
    },
    "MatmulPreference": {
        "MAX_WORKSPACE_BYTES": (1, c_uint64),
        "REDUCTION_SCHEME_MASK": (3, c_uint32),
        "MIN_ALIGNMENT_A_BYTES": (5, c_uint32),
        "MIN_ALIGNMENT_B_BYTES": (6, c_uint32),
        "MIN_ALIGNMENT_C_BYTES": (7, c_uint32),
        "MIN_ALIGNMENT_D_BYTES": (8, c_uint32),
    },
}
"""Number and type of each attribute."""
PREFIX = {
    "MatmulDesc": "CUBLASLT_MATMUL_DESC_",
    "MatrixLayout": "CUBLASLT_MATRIX_LAYOUT_",
    "MatmulPreference": "CUBLASLT_MATMUL_PREF_",
}
NEEDED = 4096
"""Bytes of workspace that every algorithm here asks for, and overwrites."""


class Thing(NamedTuple):
    """An object of the library: its kind and its attributes by name."""

    kind: str
    attributes: dict[str, int]


class Problem(NamedTuple):
    """What an algorithm was chosen for."""

    operation: dict[str, int]
    layouts: tuple[dict[str, int], ...]
    preference: dict[str, int]


def fail(function: str, status: str) -> None:
    raise RuntimeError(f"cublasLt{function} failed with CUBLAS_STATUS_{status}")


class FakeCublasLt:
    """A library to be passed as ``lt``.

    submit      what to do with work for the device: by default it is done at once
    capturing   whether a stream is captured; the library then chooses no algorithm
    heuristics  how many times an algorithm was asked for
    products    the problem of each product that was launched, in order
    objects     those that are alive, by address
    algorithms  how many the next search finds, and with which status
    """

    def __init__(
        self, submit: Callable[[Callable[[], None]], None] | None = None, capturing: Callable[[], bool] = lambda: False
    ):
        self.submit, self.capturing = submit or (lambda work: work()), capturing
        self.heuristics, self.products, self.objects = 0, list[Problem](), dict[int, Thing]()
        self.chosen, self.algorithms, self._next = list[Problem](), (1, 0), 0x1000
        for kind in ATTRIBUTES:
            setattr(self, f"cublasLt{kind}Create", partial(self._create, kind))
            setattr(self, f"cublasLt{kind}SetAttribute", partial(self._set, kind))
            setattr(self, f"cublasLt{kind}Destroy", partial(self._destroy, kind))

    # Objects

    def _add(self, thing: Thing, address: int) -> None:
        self._next += 0x10
        self.objects[self._next] = thing
        c_uint64.from_address(address).value = self._next

    def _get(self, address: int, kind: str) -> dict[str, int]:
        assert address in self.objects, f"{address} is no object, or one that was destroyed"
        assert self.objects[address].kind == kind, f"{self.objects[address].kind} used as {kind}"
        return self.objects[address].attributes

    def cublasLtCreate(self, address: int) -> None:
        self._add(Thing("Handle", {}), address)

    def _create(self, kind: str, address: int, *arguments: int) -> None:
        if kind == "MatmulDesc":
            compute, scale = arguments
            attributes = {"COMPUTE_TYPE": compute, "SCALE_TYPE": scale, "TRANSA": 0, "TRANSB": 0}
        elif kind == "MatrixLayout":
            number, rows, cols, ld = arguments
            if number not in (R_32F, R_64F, R_16F, R_16BF):
                fail("MatrixLayoutCreate", "INVALID_VALUE")
            attributes = {"TYPE": number, "ORDER": 0, "ROWS": rows, "COLS": cols, "LD": ld}
            attributes |= {"BATCH_COUNT": 1, "STRIDED_BATCH_OFFSET": 0}
        else:
            assert not arguments
            attributes = {"MAX_WORKSPACE_BYTES": 0, "REDUCTION_SCHEME_MASK": SCHEME_MASK}
            attributes |= {f"MIN_ALIGNMENT_{x}_BYTES": 256 for x in "ABCD"}
        self._add(Thing(kind, attributes), address)

    def _set(self, kind: str, thing: int, attribute: int, address: int, size: int) -> None:
        attributes = self._get(thing, kind)
        for name, (number, ctype) in ATTRIBUTES[kind].items():
            if number == attribute:
                if size != ctypes.sizeof(ctype):
                    fail(f"{kind}SetAttribute", "INVALID_VALUE")
                attributes[name] = ctype.from_address(address).value
                return
        raise AssertionError(f"attribute {attribute} of {kind} is not known here")

    def _destroy(self, kind: str, thing: int) -> None:
        self._get(thing, kind)
        del self.objects[thing]

    # Products

    def cublasLtMatmulAlgoGetHeuristic(
        self, handle, operation, a, b, c, d, preference, requested: int, results: int, found: int
    ) -> None:
        """Any algorithm will do; its number is what it consists of."""
        self._get(handle, "Handle")
        if self.capturing():
            fail("MatmulAlgoGetHeuristic", "INTERNAL_ERROR")
        problem = self._problem(operation, a, b, c, d)._replace(
            preference=dict(self._get(preference, "MatmulPreference"))
        )
        self.heuristics += 1
        check(problem)
        number, state = self.algorithms
        assert number <= requested
        self.chosen.append(problem)
        for i in range(8):
            c_uint64.from_address(results + 8 * i).value = len(self.chosen) - 1 if i == 0 else 0xABCD
        c_uint64.from_address(results + 64).value = NEEDED
        c_int32.from_address(results + 72).value = state
        c_int32.from_address(found).value = number

    def _problem(self, operation, *layouts) -> Problem:
        attributes = tuple(dict(self._get(x, "MatrixLayout")) for x in layouts)
        return Problem(dict(self._get(operation, "MatmulDesc")), attributes, {})

    def cublasLtMatmul(
        self, handle, operation, alpha, a, a_layout, b, b_layout, beta, c, c_layout, d, d_layout, algo, *rest: int
    ) -> None:
        """D = alpha op(A) op(B) + beta C."""
        workspace, size, _stream = rest
        self._get(handle, "Handle")
        problem = self._problem(operation, a_layout, b_layout, c_layout, d_layout)
        assert c_uint64.from_address(algo + 8).value == 0xABCD, "not an algorithm"
        chosen = self.chosen[c_uint64.from_address(algo).value]
        assert problem == chosen._replace(preference={}), "an algorithm for another problem"
        assert size == chosen.preference["MAX_WORKSPACE_BYTES"], "the workspace is not as large as promised"
        assert size >= NEEDED
        assert workspace, "no workspace"
        assert workspace % 256 == 0, "the workspace is not aligned"
        assert c != d or c_layout == d_layout, "in place, C and D need the same layout"
        for name, pointer, layout in zip("ABCD", (a, b, c, d), problem.layouts, strict=True):
            apart = layout["STRIDED_BATCH_OFFSET"] * dtype_of(layout).itemsize if layout["BATCH_COUNT"] > 1 else 0
            promised = chosen.preference[f"MIN_ALIGNMENT_{name}_BYTES"]
            assert pointer % promised == apart % promised == 0, f"{name} is not aligned to {promised} bytes"
        scale = np.dtype(np.float64 if problem.operation["SCALE_TYPE"] == R_64F else np.float32)
        factors = [elements(x, scale, (1,), (1,))[0].copy() for x in (alpha, beta)]
        self.products.append(chosen)

        def work() -> None:
            ctypes.memset(workspace, 0xFF, NEEDED)
            compute(problem, *factors, *(matrices(x, y) for x, y in zip((a, b, c, d), problem.layouts, strict=True)))

        self.submit(work)


def dtype_of(layout: dict[str, int]) -> np.dtype:
    if layout["TYPE"] == R_16BF:
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype({R_32F: "float32", R_64F: "float64", R_16F: "float16"}[layout["TYPE"]])


def elements(pointer: int, dtype: np.dtype, shape: tuple[int, ...], strides: tuple[int, ...]) -> np.ndarray:
    """The memory behind a pointer, without a copy."""
    span = 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    memory = (ctypes.c_uint8 * (span * dtype.itemsize)).from_address(pointer)
    flat = np.frombuffer(memory, np.uint8).view(dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, tuple(s * dtype.itemsize for s in strides))


def matrices(pointer: int, layout: dict[str, int]) -> np.ndarray:
    """(batch, rows, columns); a column is contiguous."""
    shape = layout["BATCH_COUNT"], layout["ROWS"], layout["COLS"]
    return elements(pointer, dtype_of(layout), shape, (layout["STRIDED_BATCH_OFFSET"], 1, layout["LD"]))


def check(problem: Problem) -> None:
    """What the library says INVALID_VALUE or NOT_SUPPORTED to."""
    operation, (a, b, c, d), wish = problem.operation, problem.layouts, problem.preference
    types, results = {a["TYPE"], b["TYPE"]}, {c["TYPE"], d["TYPE"]}
    widened = types in ({R_16F}, {R_16BF}) and results == {R_32F}
    compute, scale = operation["COMPUTE_TYPE"], operation["SCALE_TYPE"]
    fits = (
        {(COMPUTE_64F, R_64F)}
        if types == {R_64F}
        else {(COMPUTE_32F, R_32F), (COMPUTE_32F_FAST_TF32, R_32F)}
        if types == {R_32F}
        else {(COMPUTE_32F, R_32F)}
    )
    if len(types) != 1 or not (results == types or widened) or (compute, scale) not in fits:
        fail("MatmulAlgoGetHeuristic", "NOT_SUPPORTED")
    shape = [(x["COLS"], x["ROWS"]) if t else (x["ROWS"], x["COLS"]) for x, t in zip(
        (a, b), (operation["TRANSA"], operation["TRANSB"]), strict=True)]  # fmt: skip
    m, n, k = shape[0][0], shape[1][1], shape[0][1]
    valid = shape[1][0] == k and (d["ROWS"], d["COLS"]) == (m, n) and c == d
    valid = valid and all(0 < x["ROWS"] <= x["LD"] and x["COLS"] > 0 and x["ORDER"] == 0 for x in problem.layouts)
    valid = valid and len({x["BATCH_COUNT"] for x in problem.layouts}) == 1 and d["BATCH_COUNT"] > 0
    if not valid:
        fail("MatmulAlgoGetHeuristic", "INVALID_VALUE")
    assert all(x["STRIDED_BATCH_OFFSET"] >= 0 for x in problem.layouts)
    places = np.ogrid[: d["BATCH_COUNT"], :m, :n]
    offsets = places[0] * d["STRIDED_BATCH_OFFSET"] + places[1] + places[2] * d["LD"]
    assert np.unique(offsets).size == offsets.size, "elements of D lie upon each other"
    for x in "ABCD":
        alignment = wish[f"MIN_ALIGNMENT_{x}_BYTES"]
        assert dtype_of(d).itemsize <= alignment <= 16, f"{alignment} bytes"
    if types <= {R_16F, R_16BF}:
        assert wish["REDUCTION_SCHEME_MASK"] == SCHEME_COMPUTE_TYPE, "partial sums may be rounded to 16 bits"


def compute(
    problem: Problem, alpha: Any, beta: Any, a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray
) -> None:
    """The product in the type of the factors. C is not read where beta is 0."""
    a, b = (x.astype(alpha.dtype) for x in (a, b))
    if problem.operation["COMPUTE_TYPE"] == COMPUTE_32F_FAST_TF32:
        a, b = tf32(a), tf32(b)
    a = a.swapaxes(1, 2) if problem.operation["TRANSA"] else a
    b = b.swapaxes(1, 2) if problem.operation["TRANSB"] else b
    with np.errstate(all="ignore"):
        result = alpha * (a @ b)
        d[...] = (result + beta * c.astype(alpha.dtype) if beta else result).astype(d.dtype)


def tf32(x: np.ndarray) -> np.ndarray:
    """Rounded to 10 bits after the point."""
    return ((x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
