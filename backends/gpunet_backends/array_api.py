"""Any standard array namespace as a backend: formulas run as plain expressions. The reference for all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias

import numpy as np

from gpunet.backend import Array, Recorder, Shape, place_of
from gpunet.errors import ArrayError, DeviceError, FormulaError
from gpunet.formula import Formula, Graph, Operand, classify, dtype_kind, dtype_name, name_of, trace
from gpunet.formula.shapes import HALF, REDUCED

HOST_TYPES = (np.ndarray, np.generic, bool, int, float, list, tuple)


class ArrayAPIBackend:
    """Formulas are evaluated operation by operation; matrix products go through ``xp.matmul``."""

    near = "the CPU"  # where arrays of other libraries may be

    def __init__(self, xp: Any, device: Any = None, name: str = "array_api", host_device: Any = "cpu"):
        self.xp, self.device, self.name, self.host_device = xp, device, name, host_device
        self.detail = name if device is None else f"{name} on {device}"
        self._array_type = type(self.zeros((1,), "float32"))
        self._refuse_copies()

    def _refuse_copies(self) -> None:
        flat = self.zeros((4,), "float32")
        self.xp.reshape(flat[1:3], (2, 1))[...] = 1.0
        if float(flat[1]) != 1.0:
            raise DeviceError(f"slices of {self.name} arrays are copies, and parameters must be views. Use another.")

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Host array, number, list, own array, or another library's on the CPU -> own array."""
        if self.owns(x):
            return x if dtype is None else self.xp.astype(x, self.data_type(dtype), copy=False)
        narrow = dtype == "bfloat16"  # NumPy arrays of it are not known everywhere
        array = self.xp.asarray(self.host_array(x, "float32" if narrow else dtype), device=self.device, copy=True)
        return self.xp.astype(array, self.data_type(dtype)) if dtype and narrow else array

    def host_array(self, x: Any, dtype: str | None = None) -> Any:
        """What ``asarray`` accepts besides own arrays, as a NumPy array."""
        if not isinstance(x, HOST_TYPES):
            x = self.from_dlpack(x, "cpu", np.from_dlpack)
        try:
            array = np.asarray(x)
        except ValueError as error:  # rows of different lengths
            raise ArrayError(f"{self.name} cannot make an array of this {type(x).__name__}: {error}") from None
        if array.dtype.kind not in "biuf" and array.dtype.name not in HALF:
            raise self.no_numbers(array)
        if not array.dtype.isnative:  # files of other machines
            array = array.astype(array.dtype.newbyteorder("="))
        with np.errstate(all="ignore"):  # too large for a narrow type is infinite
            return array if dtype is None else array.astype(numpy_type(dtype), copy=False)

    def no_numbers(self, array: Array) -> ArrayError:
        """The error for an array of another data type."""
        return ArrayError(
            f"{self.name} takes numbers, but got an array of {array.dtype}. Turn words into integer labels, and "
            "complex numbers into their parts."
        )

    def from_dlpack(self, x: Any, place: str, take: Callable[[Any], Any]) -> Any:
        """Another library's array in this place, by DLPack, which copies nothing; ArrayError for whatever else."""
        kind, where = f"{type(x).__module__}.{type(x).__name__}", place_of(x)
        if where is None:
            raise ArrayError(
                f"{self.name} takes NumPy arrays, numbers, lists and its own arrays, but got a {kind}. Convert it with "
                "numpy.asarray(x) first."
            )
        if where != place:
            move = next((f"x.{name}()" for name in ("cpu", "get") if hasattr(x, name)), "numpy.asarray(x)")
            build = f', or build the model with device="{where}"' if where.startswith("cuda") else ""
            raise ArrayError(
                f"{self.name} takes arrays on {self.near}, but got a {kind} on {where}. Move it with {move}{build}."
            )
        try:
            return take(x)
        except Exception as error:  # each library has its own
            raise ArrayError(
                f"{self.name} cannot take this {kind}: {str(error).rstrip('.')}. Pass x.detach() if it has a gradient, "
                "x.float() if NumPy lacks its type, x.to_dense() if it is sparse, else numpy.asarray(x)."
            ) from error

    def to_numpy(self, x: Array) -> Any:
        """Own array -> host array; bfloat16 as float32."""
        from array_api_compat import to_device

        x = self.xp.astype(x, self.xp.float32) if dtype_name(x.dtype) == "bfloat16" else x
        return np.asarray(to_device(x, self.host_device))

    def empty(self, shape: Shape, dtype: str) -> Array:
        """Uninitialised array."""
        return self.xp.empty(shape, dtype=self.data_type(dtype), device=self.device)

    def zeros(self, shape: Shape, dtype: str) -> Array:
        """Array of zeros."""
        return self.xp.zeros(shape, dtype=self.data_type(dtype), device=self.device)

    def data_type(self, name: str) -> Any:
        """The namespace's data type of this name.

        Raises
            ArrayError: it has none.
        """
        found = getattr(self.xp, name, None)
        if found is None:
            raise ArrayError(f'{self.name} has no data type {name}. Use dtype="float32".')
        return found

    def scalar(self, value: float, dtype: str) -> Array:
        """0-d operand."""
        return self.xp.asarray(value, dtype=self.data_type(dtype), device=self.device)

    def owns(self, x: Any) -> bool:
        """Is x an array of this namespace and device?"""
        return type(x) is self._array_type and (self.device is None or x.device == self.device)

    def synchronize(self) -> None:
        """Nothing is queued."""

    def scope(self) -> AbstractContextManager[Any]:
        """Floating-point warnings off: infinities and NaN are part of a formula's meaning."""
        return np.errstate(all="ignore")

    def fuse(self, formula: Formula) -> Fused:
        """A formula to be evaluated as an expression."""
        return Fused(self, formula)

    def recorder(self) -> Recorder | None:
        """Calls cost little here: nothing is gained by recording them."""
        return None

    def gemm(
        self,
        a: Array,
        b: Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        out: Array | None = None,
        accumulate: bool = False,
    ) -> Array:
        """Matrix product of the last two axes."""
        a = self.xp.matrix_transpose(a) if transpose_a else a
        b = self.xp.matrix_transpose(b) if transpose_b else b
        storage = dtype_name(a.dtype)
        if storage in HALF:
            product = self.xp.matmul(*(self.xp.astype(x, self.xp.float32) for x in (a, b)))
            product = self.xp.astype(product, a.dtype if out is None else out.dtype)
        else:
            product = self.xp.matmul(a, b)
        if out is None:
            return product
        if accumulate:
            out += product
        else:
            out[...] = product
        return out

    def gather_rows(self, table: Array, index: Array) -> Array:
        """Rows of a table; NaN for an index out of range."""
        xp, n = self.xp, table.shape[0]
        known = (index >= 0) & (index < n)
        rows = xp.take(table, xp.reshape(xp.clip(index, 0, n - 1), (-1,)), axis=0)
        missing = xp.astype(xp.asarray(xp.nan, device=self.device), table.dtype)
        return xp.where(known[..., None], xp.reshape(rows, (*index.shape, table.shape[1])), missing)

    def scatter_add_rows(self, out: Array, index: Array, rows: Array) -> None:
        """One row after another; it asks for each index, which synchronises where there is a device."""
        rows = self.xp.astype(self.xp.reshape(rows, (-1, out.shape[1])), out.dtype)
        for n, i in enumerate(self.to_numpy(index).ravel().tolist()):
            if 0 <= i < out.shape[0]:
                out[i, ...] += rows[n, ...]


class Fused:
    """A formula, traced once per operand kinds, evaluated by its graph."""

    def __init__(self, backend: ArrayAPIBackend, formula: Formula):
        self.backend, self.formula = backend, formula
        self._graphs: dict[tuple[Operand, ...], Graph] = {}

    def graph(self, operands: Sequence[Array]) -> Graph:
        """The graph for operands of these shapes and data types."""
        kinds = tuple(classify([tuple(o.shape) for o in operands], [dtype_name(o.dtype) for o in operands]))
        if kinds not in self._graphs:
            self._graphs[kinds] = trace(self.formula, kinds)
        return self._graphs[kinds]

    def float_type(self, operands: Sequence[Array]) -> str:
        """The one float type of all operands; float32 may go along with a half-precision type."""
        types = {dtype_name(o.dtype) for o in operands if dtype_kind(o.dtype) == "float"}
        if len(types) == 2 and types & set(HALF):
            types.discard("float32")
        if len(types) != 1:
            came = " and ".join(sorted(types)) or "none"
            raise FormulaError(
                f"formula '{name_of(self.formula)}' needs operands of one float type, got {came}. "
                "Convert them with backend.asarray(x, dtype)."
            )
        return types.pop()

    def __call__(self, *operands: Array, out: Any = None) -> Any:
        """Evaluate; results are stored after everything is computed."""
        graph, storage = self.graph(operands), self.float_type(operands)
        with self.backend.scope():
            results = self._evaluate(graph, operands, storage)
            targets = (None,) * len(results) if out is None else out if isinstance(out, tuple) else (out,)
            refuse_count(graph, targets)
            for target, value in zip(targets, results, strict=True):
                if target is not None and tuple(target.shape) != tuple(value.shape):
                    raise FormulaError(
                        f"formula '{graph.name}' gives an output of shape {tuple(value.shape)}, but `out` has "
                        f"{tuple(target.shape)}. Pass an array of the output's own shape."
                    )
            stored = []
            for target, value in zip(targets, results, strict=True):
                if target is not None:
                    target[...] = value
                stored.append(value if target is None else target)
        return stored[0] if graph.single else tuple(stored)

    def _evaluate(self, graph: Graph, operands: Sequence[Array], storage: str) -> tuple[Array, ...]:
        xp = self.backend.xp
        if storage in HALF:  # stored narrow, computed in float32
            operands = [xp.astype(o, xp.float32) if dtype_name(o.dtype) == storage else o for o in operands]
        result = graph(xp, *operands)
        results: tuple[Array, ...] = (result,) if graph.single else result
        if storage in HALF:
            narrow, nodes = self.backend.data_type(storage), [graph.nodes[o] for o in graph.outputs]
            results = tuple(
                xp.astype(r, narrow) if n.dtype == "float" and n.op not in REDUCED else r
                for r, n in zip(results, nodes, strict=True)
            )
        return results


def numpy_type(name: str) -> np.dtype[Any]:
    """NumPy's data type of this name; bfloat16 comes with ml_dtypes.

    Raises
        ArrayError: ml_dtypes is missing.
    """
    if name == "bfloat16":
        try:
            import ml_dtypes
        except ImportError:
            raise ArrayError("bfloat16 arrays on the host need ml_dtypes. Run: pip install ml-dtypes.") from None
        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return found
    return np.dtype(name)


Layout: TypeAlias = tuple[int | None, ...]
"""For each output: the operand that it is stored into, or None."""


def layout_of(operands: Sequence[Array], out: Any) -> list[int | None]:
    """For each entry of ``out``: the operand that it is, or None."""
    owners = [id(a) for a in operands]
    return [owners.index(id(t)) if id(t) in owners else None for t in (out if type(out) is tuple else (out,))]


def refuse_count(graph: Graph, targets: Sequence[Array]) -> None:
    """One entry of ``out`` for each output."""
    if len(targets) != len(graph.outputs):
        raise FormulaError(
            f"formula '{graph.name}' has {len(graph.outputs)} outputs, but `out` has {len(targets)} entries. Pass a "
            "tuple with None for each output that shall be fresh."
        )


def open_strict(device: str | None) -> ArrayAPIBackend:
    """array-api-strict, for tests: "array_api_strict[:device1]"."""
    try:
        import array_api_strict as xp
    except ImportError:
        raise DeviceError("array-api-strict is not installed. Run: pip install array-api-strict.") from None
    known = ("CPU_DEVICE", "device1", "device2")
    if device not in (None, *known):
        raise DeviceError(f"it has no device '{device}'. Use one of: {', '.join(known)}.")
    return ArrayAPIBackend(xp, xp.Device(device or "CPU_DEVICE"), "array_api_strict", xp.Device("CPU_DEVICE"))


def open_torch(device: str | None) -> ArrayAPIBackend:
    """PyTorch tensors as plain arrays, for Apple, AMD and Intel devices: "torch[:mps]"."""
    try:
        import array_api_compat.torch as xp
    except ImportError:
        raise DeviceError("PyTorch is not installed. Run: pip install torch.") from None
    try:
        return ArrayAPIBackend(xp, xp.device(device or "cpu"), "torch")
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise DeviceError(f'PyTorch cannot use it: {reason}. Use "torch:cpu" or another device.') from error
