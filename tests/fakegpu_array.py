"""FakeArray: a NumPy array that behaves as cupy.ndarray does where CuPy and NumPy differ; and memory for it."""

from __future__ import annotations

import math
import operator
from types import SimpleNamespace
from typing import Any

import numpy as np


class FakeArray:
    """An array on a fake GPU. It wraps a numpy.ndarray; each FakeCupy has a subclass of its own.

    As in CuPy 14: no conversion by numpy.asarray, no arithmetic with NumPy arrays (NumPy scalars are allowed), 0-d
    results stay arrays, not hashable, no __index__; float(), int(), bool(), item() and printing copy to the host and
    wait. Stricter than CuPy: NumPy's own functions refuse it, and there is no indexing by arrays.
    """

    _cupy: Any
    __array_ufunc__ = None  # NumPy arrays and scalars leave operators to this class

    def __init__(self, data: np.ndarray, device: Any):
        self._data, self.device = data, device

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`.")

    def __array_namespace__(self, api_version: str | None = None) -> Any:
        """CuPy 14 has none: array_api_compat knows cupy.ndarray by its class, which it cannot here."""
        return self._cupy

    # What is known without asking the device

    dtype = property(lambda self: self._data.dtype)
    shape = property(lambda self: self._data.shape)
    strides = property(lambda self: self._data.strides)
    ndim = property(lambda self: self._data.ndim)
    size = property(lambda self: self._data.size)
    nbytes = property(lambda self: self._data.nbytes)
    itemsize = property(lambda self: self._data.itemsize)
    flags = property(lambda self: self._data.flags)
    data = property(lambda self: SimpleNamespace(ptr=self._data.ctypes.data))

    def __len__(self) -> int:
        return len(self._data)

    # Views

    T = property(lambda self: self._view(self._data.T))
    mT = property(lambda self: self._view(self._data.mT))

    def swapaxes(self, a: int, b: int) -> FakeArray:
        return self._view(self._data.swapaxes(a, b))

    def transpose(self, *axes: Any) -> FakeArray:
        return self._view(self._data.transpose(*axes))

    def view(self, dtype: Any = None) -> FakeArray:
        return self._view(self._data.view() if dtype is None else self._data.view(dtype))

    def reshape(self, *shape: Any) -> FakeArray:
        """A view where NumPy makes one, else a copy."""
        return self._cupy.reshape(self, shape[0] if len(shape) == 1 else shape)

    def __getitem__(self, key: Any) -> FakeArray:
        return self._view(self._data[basic(key)])

    def __iter__(self) -> Any:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # Work for the device

    def __setitem__(self, key: Any, value: Any) -> None:
        target = self._view(self._data[basic(key)])
        if not isinstance(value, FakeArray):
            target.fill(value)
            return
        source = self._cupy.operand(value)
        same = (target.shape, target.strides) == (source.shape, source.strides)
        if not (same and target._data.ctypes.data == source.ctypes.data):  # `a[i] += b` ends by storing a[i] in itself
            self._cupy.update(target, lambda: np.copyto(target._data, source, casting="unsafe"))

    def fill(self, value: Any) -> None:
        """A scalar, passed to the kernel as an argument."""
        number = np.asarray(value, dtype=self.dtype)
        if number.shape:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        self._cupy.update(self, lambda: self._data.fill(number[()]))

    def set(self, host: np.ndarray, stream: Any = None) -> None:
        """Copy from the host; without waiting if that memory is pinned."""
        assert (host.shape, host.dtype, self.flags.c_contiguous) == (self.shape, self.dtype, True)
        self._cupy.set(self, host, stream)

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> FakeArray:
        return self._cupy.call(lambda x: x.astype(dtype, order=order, copy=copy), self)

    def copy(self, order: str = "C") -> FakeArray:
        return self._cupy.call(lambda x: x.copy(order), self)

    # To the host

    def get(self) -> np.ndarray:
        """Copy to the host and wait."""
        self._cupy.download()
        return self._data.copy()

    def to_device(self, device: Any, stream: Any = None) -> Any:
        """For array_api_compat; "cpu" or a GPU."""
        return self.get() if device == "cpu" else self._cupy.move(self, device)

    def item(self) -> Any:
        if self.size != 1:
            raise ValueError("can only convert an array of size 1 to a Python scalar")
        return self.get().item()

    def tolist(self) -> Any:
        return self.get().tolist()

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ValueError("The truth value of an array with more than one element is ambiguous.")
        return bool(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __float__(self) -> float:
        return float(self.get())

    def __repr__(self) -> str:
        return repr(self.get())

    def __format__(self, spec: str) -> str:
        return format(self.get(), spec)

    # To another library

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device.id

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        """A capsule of host memory, in truth; who asks knows that it is the device's."""
        return self._data.__dlpack__(**options)

    def _view(self, data: Any) -> FakeArray:
        return type(self)(data, self.device)


def from_dlpack(cupy: Any, x: Any) -> FakeArray:
    """cupy.from_dlpack: an array in the memory of another library's, which waits for its work on the stream it is told.

    That library's array is a fake one, too: it passes on host memory, and says that it is a device's.
    """
    kind, index = x.__dlpack_device__()
    if kind == 1:
        raise TypeError(
            "CPU arrays cannot be directly imported to CuPy. Use `cupy.array(numpy.from_dlpack(input))` instead."
        )
    if kind not in (2, 13):
        raise TypeError(f"Unsupported array type: {kind}")
    stream = cupy.stream.ptr or 1
    try:
        capsule = x.__dlpack__(stream=stream, max_version=(1, 0), copy=None)
    except TypeError:
        capsule = x.__dlpack__(stream=stream)
    return cupy.ndarray(np.from_dlpack(Capsule(capsule)), cupy.cuda.Device(index))


class Capsule:
    """What NumPy takes a capsule from."""

    def __init__(self, capsule: Any):
        self.capsule = capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0

    def __dlpack__(self, **options: Any) -> Any:
        return self.capsule


def basic(key: Any) -> Any:
    """An index of integers, slices, None and `...`; with `...` a single element stays an array that is a view."""
    parts = key if isinstance(key, tuple) else (key,)
    for part in parts:
        if not (part is None or part is Ellipsis or type(part) in (slice, int) or isinstance(part, np.integer)):
            raise NotImplementedError(
                f"fakegpu has no indexing by {type(part).__name__}: a mask would synchronise. Use xp.where."
            )
    return parts if any(part is Ellipsis for part in parts) else (*parts, Ellipsis)


def _binary(name: str) -> None:
    word = name.strip("_")
    function, update = getattr(operator, name), getattr(operator, f"i{word}", None)

    def forward(self: FakeArray, other: Any) -> Any:
        return self._cupy.call(function, self, other)

    def reflected(self: FakeArray, other: Any) -> Any:
        return self._cupy.call(function, other, self)

    def in_place(self: FakeArray, other: Any) -> Any:
        return self._cupy.call(lambda a, b, out: update(a, b), self, other, out=self)

    setattr(FakeArray, f"__{word}__", forward)
    if update is not None:
        setattr(FakeArray, f"__r{word}__", reflected)
        setattr(FakeArray, f"__i{word}__", in_place)


def _unary(name: str, function: Any) -> None:
    setattr(FakeArray, name, lambda self: self._cupy.call(function, self))


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and_", "or_", "xor"):
    _binary(_name)
for _name in ("lshift", "rshift", "lt", "le", "gt", "ge", "eq", "ne"):
    _binary(_name)
for _name in ("neg", "pos", "abs", "invert"):
    _unary(f"__{_name}__", getattr(operator, _name))
FakeArray.__hash__ = None  # type: ignore[assignment]


def poison(data: np.ndarray) -> np.ndarray:
    """Fill with a number nobody expects."""
    data.fill(np.nan if "float" in data.dtype.name else 77)
    return data


def aligned(shape: Any, dtype: Any) -> np.ndarray:
    """New memory that begins, as CuPy's does, at a multiple of 512 bytes."""
    dtype = np.dtype(dtype)
    size = math.prod(shape if isinstance(shape, tuple | list) else (shape,)) * dtype.itemsize
    memory = np.empty(size + 512, np.uint8)
    start = -memory.ctypes.data % 512
    return memory[start : start + size].view(dtype).reshape(shape)
