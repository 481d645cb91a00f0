"""A GPU without a GPU: the real CupyBackend runs on a stand-in for CuPy that counts what a device would do.

Facts about CuPy are from its source, version 14.2.0. A FakeCupy serves as the module ``cupy`` and as its array-API
namespace. What it cannot show: races, speed, asynchrony, rounding of the device's own functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import array_api_strict
import numpy as np
from cuda_on_cpu import guarded
from fake_cublas_lt import FakeCublasLt
from fakegpu_array import FakeArray, aligned, from_dlpack, poison
from fakegpu_cuda import CUDARuntimeError, FakeDevice, FakeStream, cuda_of

from gpunet_backends.cupy_ import CupyBackend

PLAIN = {"bool_", "pi", "e", "inf", "nan", "newaxis", "finfo", "iinfo", "isdtype", "result_type", "can_cast"}
"""Names that are NumPy's own: numbers, and functions of data types. So are the data types."""
REFUSED = {"nonzero", "take", "take_along_axis"}
"""nonzero synchronises; CuPy's take wraps around where NumPy's raises IndexError."""
FUNCTIONS = set(array_api_strict.__all__) - REFUSED - {n for n in array_api_strict.__all__ if "unique" in n}


@dataclass
class Counts:
    """What the device was asked to do since ``reset``.

    launches          kernels, device-side copies and fills; nothing is launched for an empty result or a view
    uploads           host arrays copied to the device; a copy from memory that is not pinned waits, too
    scalars           0-d arrays made from host numbers. CuPy passes the number to a fill kernel: no copy takes place,
                      but a captured graph would repeat the number for ever
    downloads         arrays copied to the host; each one waits, so it counts as a synchronisation, too
    synchronisations  times the host waited for the device
    graphs            launches of captured graphs
    kernels           those of the launches that were compiled from source
    """

    launches: int = 0
    uploads: int = 0
    scalars: int = 0
    downloads: int = 0
    synchronisations: int = 0
    graphs: int = 0
    kernels: int = 0


def flat(x: Any) -> list[Any]:
    """What lists, tuples and dictionaries hold, at any depth."""
    if isinstance(x, dict):
        x = list(x.values())
    return [v for part in x for v in flat(part)] if isinstance(x, list | tuple) else [x]


class FakeCupy:
    """Stands in for the module cupy; ``counts`` says what the device did.

    orders   orders of threads in which each kernel runs; its results must be the same bits
    guarded  new memory ends at a page that cannot be read
    gpus    how many there are. None may read another's memory: CuPy would warn or fail, this fails
    values  the numbers behind ``counts.scalars``, in order
    """

    __name__, __version__ = "fakegpu", "14.2.0"

    def __init__(self, gpus: int = 1):
        self.gpus, self.current, self.stack = gpus, 0, list[int]()
        self.counts, self.values = Counts(), list[Any]()
        self.recorded: list[Callable[[], None]] | None = None  # while a stream captures
        self.broken, self.late = False, False
        self.orders, self.guarded = (0,), False
        self.streams, self.stream_stack, self.order = 0, list[FakeStream](), list[tuple[Any, ...]]()
        self.stream = FakeStream(self, null=True)
        self.allocator: Any = None
        self.pinned: list[tuple[int, int]] = []
        self.kept: list[FakeArray] = []
        self.ndarray = type("FakeArray", (FakeArray,), {"_cupy": self, "__module__": "fakegpu"})
        self.cuda = cuda_of(self)
        self.pool = self.cuda.MemoryPool()

    def get_default_memory_pool(self) -> Any:
        """The pool of what is allocated otherwise."""
        return self.pool

    def __getattr__(self, name: str) -> Any:
        value = getattr(np, name, None) if name in FUNCTIONS | PLAIN else None
        if value is None:
            raise AttributeError(f"fakegpu has no '{name}': it has the array-API standard's names only.")
        if name in PLAIN or isinstance(value, type):
            return value
        return lambda *args, **kwargs: self.call(value, *args, **kwargs)

    # Counting

    def reset(self) -> None:
        """Forget what was counted."""
        self.counts, self.values = Counts(), []

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """While a CUDA graph is captured, and then forgotten; memory comes from a pool of its own."""
        stream, pool = self.cuda.Stream(non_blocking=True), self.cuda.MemoryPool()
        with stream, self.cuda.using_allocator(pool.malloc):
            stream.begin_capture()
            try:
                yield
            finally:
                self.recorded = None

    def submit(self, work: Callable[[], None]) -> None:
        """Work for the device: done at once, or recorded by the stream that captures."""
        self.counts.launches += 1
        if self.recorded is None:
            work()
        else:
            self.recorded.append(work)

    def update(self, target: FakeArray, work: Callable[[], None]) -> FakeArray:
        """A kernel that writes to an array, on the current device."""
        self.check_device(target)
        if target.size:

            def quietly() -> None:
                with np.errstate(all="ignore"):
                    work()

            self.submit(quietly)
        return target

    def produce(self, result: FakeArray, work: Callable[[], None]) -> FakeArray:
        """A kernel that makes a new array. Until a graph runs it, the array is poisoned."""
        if self.recorded is not None:
            poison(result._data)
        return self.update(result, work)

    def allocated(self, data: np.ndarray, device: Any = None) -> FakeArray:
        """An array in new memory of the device."""
        if self.recorded is not None and self.allocator is None:
            raise AssertionError("memory of the common pool in a graph: others will use it between launches")
        result = self.ndarray(data, device or FakeDevice(self))
        if self.recorded is not None:
            self.kept.append(result)  # as the pool does: graphs and libraries go by addresses
        return result

    def upload(self, result: FakeArray, data: np.ndarray) -> FakeArray:
        """A number is filled in, an array copied."""
        if data.ndim == 0:
            self.counts.scalars += 1
            self.values.append(data.item())
            return self.produce(result, lambda: np.copyto(result._data, data))
        if data.size:
            self.refuse_copy("H2D")
            self.counts.uploads += 1
            np.copyto(result._data, data.reshape(result.shape))
        return result

    def set(self, target: FakeArray, data: np.ndarray, stream: FakeStream | None) -> None:
        """A copy from the host on a stream."""
        start = data.ctypes.data
        pinned = any(a <= start and start + data.nbytes <= b for a, b in self.pinned)
        self.order.append(("copy", (stream or self.stream).ptr, target))
        self.upload(target, data.reshape(-1))
        if not pinned:
            self.wait()

    def download(self) -> None:
        """A copy to the host, which waits."""
        self.refuse_copy("D2H")
        self.counts.downloads += 1
        self.wait()

    def wait(self) -> None:
        """The host waits for the device."""
        self.refuse_waiting()
        self.counts.synchronisations += 1

    def refuse_copy(self, direction: str) -> None:
        """As CuPy does while the stream captures."""
        if self.recorded is not None:
            raise RuntimeError(f"the current stream is capturing, so {direction} transfers are disallowed")

    def refuse_waiting(self) -> None:
        """As CUDA does while the stream captures; the graph is lost."""
        if self.recorded is not None:
            self.broken = True
            raise CUDARuntimeError(
                900, "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
            )

    def check_device(self, x: FakeArray) -> None:
        """The array must be on the current GPU."""
        if x.device.id != self.current:
            raise ValueError(
                f"The device where the array resides ({x.device.id}) is different from the current device "
                f"({self.current}). Peer access is unavailable between these devices."
            )

    # Calling NumPy for the device

    def operand(self, x: Any) -> Any:
        """What NumPy gets for an argument; host arrays are refused."""
        if isinstance(x, self.ndarray):
            return x._data
        if isinstance(x, np.ndarray | FakeArray):
            raise TypeError(f"Unsupported type {type(x)}")
        return type(x)(self.operand(v) for v in x) if isinstance(x, list | tuple) else x

    def call(self, function: Callable[..., Any], *args: Any, out: FakeArray | None = None, **kwargs: Any) -> Any:
        """Run a NumPy function; a result that is not a view of an argument was launched."""
        host, options = list(map(self.operand, args)), {name: self.operand(v) for name, v in kwargs.items()}
        inputs = [x for x in flat((args, kwargs)) if isinstance(x, self.ndarray)]

        def compute(**more: Any) -> Any:
            return function(*host, **options, **more)

        if out is not None:
            for x in inputs:
                self.check_device(x)
            return self.update(out, lambda: compute(out=out._data))
        with np.errstate(all="ignore"):
            result = compute()
        if isinstance(result, tuple):
            raise NotImplementedError("fakegpu has no functions with several results: those of CuPy synchronise.")
        made = np.asarray(result)
        for x in inputs:
            if np.may_share_memory(x._data, made):
                return x if x._data is result else x._view(made)
        for x in inputs:
            self.check_device(x)
        target = self.allocated(made)
        if self.recorded is None:
            return self.produce(target, lambda: None)  # it is computed already
        return self.produce(target, lambda: np.copyto(target._data, compute()))

    # Making arrays

    def asarray(self, x: Any, dtype: Any = None, *, device: Any = None, copy: bool | None = None) -> FakeArray:
        with FakeDevice(self, device):
            if isinstance(x, self.ndarray):
                x = x if x.device.id == self.current else self.move(x, self.current)
                return x.astype(x.dtype if dtype is None else dtype, copy=bool(copy))
            data = np.array(x, dtype=dtype)
            return self.upload(self.allocated(np.empty_like(data)), data)

    def array(self, x: Any, dtype: Any = None, copy: bool = True) -> FakeArray:
        return self.asarray(x, dtype, copy=copy)

    def from_dlpack(self, x: Any) -> FakeArray:
        return from_dlpack(self, x)

    def asnumpy(self, x: Any) -> np.ndarray:
        return x.get() if isinstance(x, FakeArray) else np.asarray(x)

    def astype(self, x: FakeArray, dtype: Any, *, copy: bool = True) -> FakeArray:
        return x.astype(dtype, copy=copy)

    def empty(self, shape: Any, dtype: Any = np.float64, device: Any = None) -> FakeArray:
        """Filled with a number nobody expects."""
        with FakeDevice(self, device):
            data = aligned(shape, dtype)
            return self.allocated(poison(guarded(data) if self.guarded and data.size else data))

    def zeros(self, shape: Any, dtype: Any = np.float64, device: Any = None) -> FakeArray:
        return self.full(shape, 0, dtype, device)

    def ones(self, shape: Any, dtype: Any = np.float64, device: Any = None) -> FakeArray:
        return self.full(shape, 1, dtype, device)

    def full(self, shape: Any, value: Any, dtype: Any = None, device: Any = None) -> FakeArray:
        with FakeDevice(self, device):
            like = np.full((), self.operand(value), dtype)
            result = self.allocated(aligned(shape, like.dtype))
            return self.produce(result, lambda: result._data.fill(like[()]))

    def arange(self, *limits: Any, dtype: Any = None, device: Any = None) -> FakeArray:
        """As array_api_compat's: ``device`` is ignored, the current one counts."""
        data = np.arange(*limits, dtype=dtype)
        result = self.allocated(np.empty_like(data))
        return self.produce(result, lambda: np.copyto(result._data, data))

    def move(self, x: FakeArray, device: Any) -> FakeArray:
        """A copy on another GPU."""
        with FakeDevice(self, device):
            result = self.allocated(np.empty_like(x._data))
            return self.produce(result, lambda: np.copyto(result._data, x._data))


def open_fakegpu(index: int = 0, gpus: int = 1, *, tf32: bool = False) -> CupyBackend:
    """The real CupyBackend on a fake GPU; its counters are at ``backend.cupy``."""
    cupy = FakeCupy(gpus)
    library = FakeCublasLt(cupy.submit, lambda: cupy.recorded is not None)
    return CupyBackend(cupy, cupy, library, index, tf32=tf32)
