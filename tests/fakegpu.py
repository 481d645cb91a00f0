"""A GPU without a GPU: the real CupyBackend runs on a stand-in for CuPy that counts what a device would do.

Facts about CuPy are from its source, version 14.2.0. A FakeCupy serves as the module ``cupy`` and as its array-API
namespace. What it cannot show: races, speed, asynchrony, rounding of the device's own functions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import array_api_strict
import numpy as np
from fakegpu_array import FakeArray

from gpunet_backends.cupy_ import CupyBackend

PLAIN = {"bool_", "pi", "e", "inf", "nan", "newaxis", "finfo", "iinfo", "isdtype", "result_type", "can_cast"}
"""Names that are NumPy's own: numbers, and functions of data types. So are the data types."""
REFUSED = {"from_dlpack", "nonzero", "take", "take_along_axis"}
"""nonzero synchronises; CuPy's take wraps around where NumPy's raises IndexError."""
FUNCTIONS = set(array_api_strict.__all__) - REFUSED - {n for n in array_api_strict.__all__ if "unique" in n}


@dataclass
class Counts:
    """What the device was asked to do since ``reset``.

    launches          kernels, device-side copies and fills; nothing is launched for an empty result or a view
    uploads           host arrays copied to the device
    scalars           0-d arrays made from host numbers. CuPy passes the number to a fill kernel: no copy takes place,
                      but a captured graph would repeat the number for ever
    downloads         arrays copied to the host; each one waits, so it counts as a synchronisation, too
    synchronisations  times the host waited for the device
    """

    launches: int = 0
    uploads: int = 0
    scalars: int = 0
    downloads: int = 0
    synchronisations: int = 0


def flat(x: Any) -> list[Any]:
    """What lists, tuples and dictionaries hold, at any depth."""
    if isinstance(x, dict):
        x = list(x.values())
    return [v for part in x for v in flat(part)] if isinstance(x, list | tuple) else [x]


class CUDARuntimeError(RuntimeError):
    """CuPy's, with the error's number."""

    def __init__(self, status: int, text: str = ""):
        self.status = status
        super().__init__(text or f"cudaError{status}: error {status}")


class FakeDevice:
    """cupy.cuda.Device: a context manager that may be nested and entered again, equal by number, not hashable."""

    def __init__(self, cupy: FakeCupy, device: Any = None):
        self._cupy, self.id = cupy, cupy.current if device is None else int(device)

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FakeDevice) and self.id == other.id

    __hash__ = None  # type: ignore[assignment]

    def __enter__(self) -> FakeDevice:
        self._cupy.stack.append(self._cupy.current)
        return self.use()

    def __exit__(self, *error: object) -> None:
        self._cupy.current = self._cupy.stack.pop()

    def __repr__(self) -> str:
        return f"<CUDA Device {self.id}>"

    def use(self) -> FakeDevice:
        if not 0 <= self.id < self._cupy.gpus:
            raise CUDARuntimeError(101, "cudaErrorInvalidDevice: invalid device ordinal")
        self._cupy.current = self.id
        return self

    def synchronize(self) -> None:
        self._cupy.wait()


class FakeCupy:
    """Stands in for the module cupy; ``counts`` says what the device did.

    gpus    how many there are. None may read another's memory: CuPy would warn or fail, this fails
    values  the numbers behind ``counts.scalars``, in order
    """

    __name__, __version__ = "fakegpu", "14.2.0"

    def __init__(self, gpus: int = 1):
        self.gpus, self.current, self.stack = gpus, 0, list[int]()
        self.counts, self.values = Counts(), list[Any]()
        self._capturing = False
        self.ndarray = type("FakeArray", (FakeArray,), {"_cupy": self, "__module__": "fakegpu"})
        runtime = SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDeviceCount=lambda: self.gpus,
            getDevice=lambda: self.current,
            getDeviceProperties=lambda index: {"name": b"Fake GPU"},
            driverGetVersion=lambda: 13020,
            runtimeGetVersion=lambda: 13020,
        )
        self.cuda = SimpleNamespace(Device=lambda device=None: FakeDevice(self, device), runtime=runtime)

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
        """As while a CUDA graph is captured: a copy between host and device or a synchronisation raises RuntimeError.

        Numbers from the host do not raise, nor do they in CuPy; see ``Counts.scalars``.
        """
        self._capturing = True
        try:
            yield
        finally:
            self._capturing = False

    def launch(self, result: FakeArray) -> None:
        """A kernel that writes the result, on the current device."""
        self._check_device(result)
        self.counts.launches += result.size > 0

    def upload(self, data: np.ndarray) -> None:
        """A number is filled in, an array copied."""
        if data.ndim == 0:
            self.counts.scalars += 1
            self.counts.launches += 1
            self.values.append(data.item())
        elif data.size:
            self._refuse_capture("a copy from the host")
            self.counts.uploads += 1

    def download(self) -> None:
        """A copy to the host, which waits."""
        self._refuse_capture("a copy to the host")
        self.counts.downloads += 1
        self.wait()

    def wait(self) -> None:
        """The host waits for the device."""
        self._refuse_capture("a synchronisation")
        self.counts.synchronisations += 1

    def _refuse_capture(self, what: str) -> None:
        if self._capturing:
            raise CUDARuntimeError(900, f"cudaErrorStreamCaptureUnsupported: {what} while the stream is capturing")

    def _check_device(self, x: FakeArray) -> None:
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

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a NumPy function; a result that is not a view of an argument was launched."""
        with np.errstate(all="ignore"):
            result = function(*map(self.operand, args), **{name: self.operand(v) for name, v in kwargs.items()})
        if isinstance(result, tuple):
            raise NotImplementedError("fakegpu has no functions with several results: those of CuPy synchronise.")
        inputs = [x for x in flat((args, kwargs)) if isinstance(x, self.ndarray)]
        made, out = self.ndarray(np.asarray(result), FakeDevice(self)), kwargs.get("out")
        for x in inputs if out is None else ():
            if np.may_share_memory(x._data, made._data):
                return x if x._data is result else x._view(made._data)
        for x in inputs:
            self._check_device(x)
        return self._launched(made if out is None else out)

    def _launched(self, result: FakeArray) -> FakeArray:
        self.launch(result)
        return result

    # Making arrays

    def asarray(self, x: Any, dtype: Any = None, *, device: Any = None, copy: bool | None = None) -> FakeArray:
        with FakeDevice(self, device):
            if isinstance(x, self.ndarray):
                x = x if x.device.id == self.current else self.move(x, self.current)
                return x.astype(x.dtype if dtype is None else dtype, copy=bool(copy))
            data = np.array(x, dtype=dtype)
            self.upload(data)
            return self.ndarray(data, FakeDevice(self))

    def array(self, x: Any, dtype: Any = None, copy: bool = True) -> FakeArray:
        return self.asarray(x, dtype, copy=copy)

    def asnumpy(self, x: Any) -> np.ndarray:
        return x.get() if isinstance(x, FakeArray) else np.asarray(x)

    def astype(self, x: FakeArray, dtype: Any, *, copy: bool = True) -> FakeArray:
        return x.astype(dtype, copy=copy)

    def empty(self, shape: Any, dtype: Any = np.float64, device: Any = None) -> FakeArray:
        """Filled with a number nobody expects."""
        with FakeDevice(self, device):
            data = np.empty(shape, dtype)
            data.fill(np.nan if data.dtype.kind == "f" else 77)
            return self.ndarray(data, FakeDevice(self))

    def zeros(self, shape: Any, dtype: Any = np.float64, device: Any = None) -> FakeArray:
        return self.full(shape, 0, dtype, device)

    def ones(self, shape: Any, dtype: Any = np.float64, device: Any = None) -> FakeArray:
        return self.full(shape, 1, dtype, device)

    def full(self, shape: Any, value: Any, dtype: Any = None, device: Any = None) -> FakeArray:
        with FakeDevice(self, device):
            return self._launched(self.ndarray(np.full(shape, self.operand(value), dtype), FakeDevice(self)))

    def arange(self, *limits: Any, dtype: Any = None, device: Any = None) -> FakeArray:
        """As array_api_compat's: ``device`` is ignored, the current one counts."""
        return self._launched(self.ndarray(np.arange(*limits, dtype=dtype), FakeDevice(self)))

    def move(self, x: FakeArray, device: Any) -> FakeArray:
        """A copy on another GPU."""
        with FakeDevice(self, device):
            return self._launched(self.ndarray(x._data.copy(), FakeDevice(self)))


def open_fakegpu(index: int = 0, gpus: int = 1) -> CupyBackend:
    """The real CupyBackend on a fake GPU; its counters are at ``backend.cupy``."""
    cupy = FakeCupy(gpus)
    return CupyBackend(cupy, cupy, index)
