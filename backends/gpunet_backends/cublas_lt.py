"""Matrix products through cuBLASLt, which a CUDA graph can capture; CuPy refuses its own while a stream is captured."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from ctypes import addressof, c_int, c_int32, c_int64, c_uint32, c_uint64, c_void_p, sizeof
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from gpunet.backend import Array, Shape
from gpunet.errors import ShapeError
from gpunet_backends.cublas_lt_library import (
    CUBLAS_COMPUTE_32F_FAST_TF32,
    CUBLASLT_MATMUL_DESC_TRANSA,
    CUBLASLT_MATMUL_DESC_TRANSB,
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
    CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
    CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
    CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT,
    CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
    CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE,
    CUDA_R_32F,
    CUDA_R_64F,
    TYPES,
    Heuristic,
)

PLANS = 1024  # signatures that are remembered


class Layout(NamedTuple):
    """A matrix as cuBLASLt sees it: columns of contiguous elements, ld elements apart; the next matrix is step on.

    A row-major matrix is seen as its transpose; only one whose own columns are contiguous is not: it is ``transposed``.
    """

    rows: int
    columns: int
    ld: int
    step: int
    transposed: bool


def layout(x: Array) -> Layout | None:
    """How the matrices of a 2-D or 3-D array lie; None if they have to be copied first."""
    apart = [s if n > 1 else 0 for n, s in zip(x.shape, x.strides, strict=True)]
    if any(s < 0 or s % x.itemsize for s in apart):
        return None
    (m, n), (step, down, right) = x.shape[-2:], [s // x.itemsize for s in (0, *apart)[-3:]]
    if (n == 1 or right == 1) and (m == 1 or down >= n):
        return Layout(n, m, max(down, n), step, False)
    if (m == 1 or down == 1) and (n == 1 or right >= m):
        return Layout(m, n, max(right, m), step, True)
    return None


def result_shape(a: Shape, b: Shape) -> Shape:
    """(…, M, K) times (…, K, N) is (…, M, N); leading axes are broadcast."""
    if len(a) > 1 and len(b) > 1 and a[-1] == b[-2]:
        with suppress(ValueError):
            return (*np.broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
    raise ShapeError(f"(…, M, K) times (…, K, N) needs leading axes that broadcast, but got {a} and {b}. Reshape one.")


class Plan:
    """How the products of one signature run. What is row-major is seen as its transpose, so it is outᵀ = bᵀ aᵀ."""

    def __init__(self, owner: LtMatmul, layouts: list[Layout], batch: int, types: Any, add: bool, alignment: int):
        """types  data types of a and b, and of the result"""
        self._owner, self._made, self._found = owner, list[tuple[str, int]](), Heuristic()
        (dtype, result_type), (a, b, _) = types, layouts
        number, compute, scale = owner.types[dtype.name]
        numbers = (number, number, owner.types[result_type.name][0])
        flags = {CUBLASLT_MATMUL_DESC_TRANSA: c_int32(b.transposed), CUBLASLT_MATMUL_DESC_TRANSB: c_int32(a.transposed)}
        operation = self._new("MatmulDesc", compute, scale, attributes=flags)
        left, right, result = (self._matrix(n, x, batch) for n, x in zip(numbers, layouts, strict=True))
        for x in layouts if batch > 1 else ():
            alignment |= x.step * dtype.itemsize
        wish, count, found = self._wish(dtype, alignment & -alignment), c_int(), addressof(self._found)
        search = owner.lt.cublasLtMatmulAlgoGetHeuristic
        search(owner.handle, operation, right, left, result, result, wish, 1, found, addressof(count))
        if count.value == 0 or self._found.state:
            raise RuntimeError(f"{count.value} found, the first has status {self._found.state}")
        zero, one = owner.scales[scale]
        self._fixed = operation, one, one if add else zero, left, right, result, found

    def _new(self, kind: str, *arguments: int, attributes: dict[int, Any]) -> int:
        """Pointer to a new object of the library. It lives on the host: a captured graph does without it."""
        pointer = c_void_p()
        getattr(self._owner.lt, f"cublasLt{kind}Create")(addressof(pointer), *arguments)
        self._made.append((kind, made := pointer.value or 0))
        for name, value in attributes.items():
            getattr(self._owner.lt, f"cublasLt{kind}SetAttribute")(made, name, addressof(value), sizeof(value))
        return made

    def _matrix(self, number: int, x: Layout, batch: int) -> int:
        many = {CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT: c_int32(batch)}
        apart = {CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET: c_int64(x.step)}
        return self._new("MatrixLayout", number, x.rows, x.columns, x.ld, attributes=many | apart)

    def _wish(self, dtype: Any, alignment: int) -> int:
        """What the algorithm has to get along with."""
        first, last = CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES
        wish: dict[int, Any] = {name: c_uint32(alignment) for name in range(first, last + 1)}
        wish[CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES] = c_uint64(self._owner.workspace_bytes)
        if dtype.itemsize == 2:  # partial sums stay in float32, whichever algorithm it is
            wish[CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK] = c_uint32(CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE)
        return self._new("MatmulPreference", attributes=wish)

    def __del__(self) -> None:
        for kind, pointer in self._made:
            getattr(self._owner.lt, f"cublasLt{kind}Destroy")(pointer)

    def __call__(self, a: Array, b: Array, out: Array) -> Array:
        """Put a b into out, or add it."""
        owner, x, y, z = self._owner, a.data.ptr, b.data.ptr, out.data.ptr
        stream, size = owner.current_stream().ptr, owner.workspace_bytes
        memory, handle = owner.workspaces.get(stream) or owner.new_workspace(stream), owner.handle
        operation, one, beta, left, right, result, algo = self._fixed
        owner.product(handle, operation, one, y, right, x, left, beta, z, result, z, result, algo, memory, size, stream)
        return out


class LtMatmul:
    """Matrix products on the GPU that was current when it was made; one thread at a time may call it.

    The first product of a signature (shapes, strides, data types, alignment) asks cuBLASLt for an algorithm, which from
    CUDA 13.3 on fails while a stream is captured. So it is refused then: run a step once before.

    cupy  the module, or one that behaves like it
    lt    what ``load`` returns
    tf32  whether float32 operands may be rounded to 10 bits after the point, for speed
    """

    def __init__(self, cupy: Any, lt: Any, *, tf32: bool = False):
        self.cupy, self.lt = cupy, lt
        self.types = TYPES | ({"float32": (CUDA_R_32F, CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F)} if tf32 else {})
        self.current_stream, self.product = cupy.cuda.get_current_stream, lt.cublasLtMatmul
        self.workspace_bytes = (32 if int(cupy.cuda.Device().compute_capability) >= 90 else 8) << 20
        """NVIDIA recommends 32 MiB for Hopper and 4 MiB for what was before."""
        self.workspaces: dict[int, int] = {}
        """Address of each stream's workspace, by the stream's pointer."""
        self._memory, self._plans = dict[int, Array](), dict[tuple[Any, ...], Callable[..., Array]]()
        self._numbers = {CUDA_R_32F: np.array([0, 1], "float32"), CUDA_R_64F: np.array([0, 1], "float64")}
        self.scales = {scale: (x.ctypes.data, x.ctypes.data + x.itemsize) for scale, x in self._numbers.items()}
        """Addresses of 0 and 1, by data type."""
        handle = c_void_p()
        lt.cublasLtCreate(addressof(handle))  # never destroyed: it lives as long as the process
        self.handle = handle.value

    def matmul(self, a: Array, b: Array, out: Array | None = None, accumulate: bool = False) -> Array:
        """Return a b, or put it into out, or add it; out shares no memory with a and b.

        Other data types than float64, float32, float16 and bfloat16, or two different ones, go to CuPy.
        Shapes: a (…, M, K), b (…, K, N), out (…, M, N); leading axes are broadcast.
        Raises
            ShapeError: before anything is written.
            RuntimeError: the first time while the stream is captured, or where cuBLASLt has no algorithm.
        """
        key: tuple[Any, ...] = (a.dtype, a.shape, a.strides, b.dtype, b.shape, b.strides)
        pointers = 16 | a.data.ptr | b.data.ptr
        if out is not None:
            key += (out.dtype, out.shape, out.strides, accumulate)
            pointers |= out.data.ptr
        alignment = pointers & -pointers  # the lowest bit: bytes, 16 at most; that of a fresh result is more
        plan = self._plans.get((key, alignment))
        if plan is None:
            plan = self._plan(a, b, out, accumulate and out is not None, alignment)
            if len(self._plans) >= PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key, alignment] = plan
        return plan(a, b, out)

    def new_workspace(self, stream: int) -> int:
        """Memory for the products on one stream, which run one after another; those on two streams may overlap.

        A graph writes into that of the stream it was captured on, so graphs from one stream must not run at the same
        time, and it is kept until it is forgotten after the last of them. cuBLASLt needs 256 bytes of alignment.
        """
        self._memory[stream] = memory = self.cupy.empty(self.workspace_bytes, "uint8")
        self.workspaces[stream] = address = int(memory.data.ptr)
        return address

    def forget(self, stream: int) -> None:
        """Give back the workspace of a stream on which nothing runs any more."""
        self.workspaces.pop(stream, None)
        self._memory.pop(stream, None)

    def _plan(self, a: Array, b: Array, out: Array | None, add: bool, alignment: int) -> Callable[..., Array]:
        """A function of a, b and out, for all operands of this signature."""
        shape, dtype, k = result_shape(a.shape, b.shape), a.dtype, a.shape[-1]
        if out is not None and out.shape != shape:
            raise ShapeError(f"{a.shape} times {b.shape} is {shape}, but out is {out.shape}. Pass out of that shape.")
        types = (dtype, dtype if out is None else out.dtype)
        narrow = dtype.itemsize == 2 and types[1] == "float32"  # as gradients of mixed precision are
        if dtype.name not in TYPES or dtype != b.dtype or not (narrow or types[1] == dtype):
            return partial(self._through_cupy, add)
        if 0 in shape or k == 0:
            return partial(self._nothing, add, shape)
        (*lead, m, n), whole = shape, out is None or out.flags.c_contiguous
        result = Layout(n, m, n, m * n, False) if whole else layout(out) if len(lead) < 2 else None
        if result is None or result.transposed:
            return partial(self._copied, add, (False, False, True))
        count = prod(lead)
        if lead and whole and a.flags.c_contiguous and a.size == count * m * k and b.size == k * n:
            return partial(self._reshaped, add, shape, [(count * m, k), (k, n), (count * m, n)])
        if len(lead) > 1:
            shapes = [s if x.size == prod(s) else (count, *s) for x, s in ((a, (m, k)), (b, (k, n)))]
            return partial(self._reshaped, add, shape, [*shapes, (count, m, n) if count > 1 else (m, n)])
        left, right = layout(a), layout(b)
        if left is None or right is None:
            return partial(self._copied, add, (left is None, right is None, False))
        name = f"{a.shape} times {b.shape} in {dtype.name}"
        if self.current_stream().is_capturing():
            raise RuntimeError(f"{name} cannot begin while the stream is captured. Run the same step once before.")
        try:
            plan = Plan(self, [left, right, result], count, types, add, alignment)
        except RuntimeError as error:
            raise RuntimeError(f"cuBLASLt has no algorithm for {name}: {error}. Split it into smaller ones.") from error
        return plan if out is not None else lambda a, b, out: plan(a, b, self.cupy.empty(shape, dtype))

    def _reshaped(self, add: bool, shape: Shape, to: list[Shape], a: Array, b: Array, out: Array | None) -> Array:
        """One batch axis, or none, for several; what does not lie evenly is copied by reshape."""
        a, b = (
            (x if x.size == prod(s) else self.cupy.broadcast_to(x, (*shape[:-2], *s[-2:]))).reshape(s)
            for x, s in zip((a, b), to, strict=False)
        )
        if out is None:
            return self.matmul(a, b).reshape(shape)
        self.matmul(a, b, out.reshape(to[2]), add)
        return out

    def _copied(self, add: bool, which: tuple[bool, bool, bool], a: Array, b: Array, out: Array | None) -> Array:
        """The product of contiguous copies."""
        a, b = (x.copy() if copy else x for x, copy in zip((a, b), which, strict=False))
        if out is None or not which[2]:
            return self.matmul(a, b, out, add)
        out[...] = self.matmul(a, b, out.copy() if add else self.cupy.empty(out.shape, out.dtype), add)
        return out

    def _nothing(self, add: bool, shape: Shape, a: Array, b: Array, out: Array | None) -> Array:
        """A result without elements, or sums without terms."""
        if out is None:
            return self.cupy.zeros(shape, a.dtype)
        if out.size and not add:
            out.fill(0)
        return out

    def _through_cupy(self, add: bool, a: Array, b: Array, out: Array | None) -> Array:
        if out is None or not add:
            return self.cupy.matmul(a, b) if out is None else self.cupy.matmul(a, b, out=out)
        out += self.cupy.matmul(a, b)
        return out
