"""What is under cupy.cuda: devices, streams, events, graphs, memory, kernels; on a machine without a GPU.

Work is done at once, whatever its stream; while a stream captures, it is recorded instead, and a graph runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from cuda_on_cpu import CpuModule, CudaError

if TYPE_CHECKING:
    from fakegpu import FakeCupy


class CUDARuntimeError(RuntimeError):
    """CuPy's, with the error's number."""

    def __init__(self, status: int, text: str = ""):
        self.status = status
        super().__init__(text or f"cudaError{status}: error {status}")


class OutOfMemoryError(MemoryError):
    """CuPy's."""


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

    compute_capability = "90"

    def use(self) -> FakeDevice:
        if not 0 <= self.id < self._cupy.gpus:
            raise CUDARuntimeError(101, "cudaErrorInvalidDevice: invalid device ordinal")
        self._cupy.current = self.id
        return self

    def synchronize(self) -> None:
        self._cupy.wait()


class FakeStream:
    """cupy.cuda.Stream: ``with stream`` makes it the current one. 0 is the default stream."""

    def __init__(self, cupy: FakeCupy, null: bool = False, non_blocking: bool = False):
        self._cupy, self.is_non_blocking = cupy, non_blocking
        cupy.streams += not null
        self.ptr = 0 if null else cupy.streams

    def __enter__(self) -> FakeStream:
        self._cupy.stream_stack.append(self._cupy.stream)
        self._cupy.stream = self
        return self

    def __exit__(self, *error: object) -> None:
        self._cupy.stream = self._cupy.stream_stack.pop()

    def record(self, event: FakeEvent | None = None) -> FakeEvent:
        event = event or FakeEvent(self._cupy)
        self._cupy.order.append(("record", self.ptr, event))
        return event

    def wait_event(self, event: FakeEvent) -> None:
        self._cupy.order.append(("wait", self.ptr, event))

    def synchronize(self) -> None:
        self._cupy.wait()

    def is_capturing(self) -> bool:
        return self._cupy.recorded is not None and self._cupy.stream is self

    def begin_capture(self) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        assert self._cupy.recorded is None
        self._cupy.recorded, self._cupy.broken = [], False

    def end_capture(self) -> FakeGraph:
        recorded, self._cupy.recorded = self._cupy.recorded, None
        if self._cupy.broken:
            raise CUDARuntimeError(901, "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")
        return FakeGraph(self._cupy, recorded or [])


class FakeEvent:
    """cupy.cuda.Event. ``cupy.late``: the device lags behind, and nothing is done yet."""

    def __init__(self, cupy: FakeCupy, block: bool = False, disable_timing: bool = False):
        self._cupy = cupy

    @property
    def done(self) -> bool:
        return not self._cupy.late

    def record(self, stream: FakeStream | None = None) -> None:
        (stream or self._cupy.stream).record(self)

    def synchronize(self) -> None:
        self._cupy.wait()


class FakeGraph:
    """cupy.cuda.Graph: runs what was recorded, as one launch."""

    def __init__(self, cupy: FakeCupy, work: list[Callable[[], None]]):
        self._cupy, self.work = cupy, work

    def launch(self, stream: FakeStream | None = None) -> None:
        assert self._cupy.recorded is None
        self._cupy.counts.graphs += 1
        self._cupy.order.append(("graph", (stream or self._cupy.stream).ptr, self))
        for one in self.work:
            one()

    def upload(self, stream: FakeStream | None = None) -> None:
        pass


class FakeMemoryPool:
    """cupy.cuda.MemoryPool. What is allocated while a stream captures must come from one that the graph keeps.

    freed  how often its free blocks were given back
    """

    def __init__(self, allocator: Callable[[int], Any] | None = None):
        self.allocator, self.freed = allocator, 0

    def malloc(self, size: int) -> None:
        raise NotImplementedError("fakegpu only asks whose malloc is in use")

    def free_all_blocks(self) -> None:
        self.freed += 1

    def set_limit(self, size: int) -> None:
        assert size == 0


class FakeNvrtc:
    """cupy.cuda.nvrtc: the same source, compiled for the CPU. Its machine code is the source itself."""

    class NVRTCError(RuntimeError):
        pass

    def __init__(self) -> None:
        self.programs: list[str] = []
        self.log = ""

    def getVersion(self) -> tuple[int, int]:
        return 0, 0  # so that nothing lands in the folder of a real one

    def getSupportedArchs(self) -> list[int]:
        return [75, 80, 90]

    def createProgram(self, source: str, name: str, headers: tuple[str, ...], names: tuple[str, ...]) -> int:
        self.programs.append(source)
        return len(self.programs) - 1

    def compileProgram(self, program: int, options: tuple[str, ...]) -> None:
        assert all(type(o) is str for o in options)
        try:
            module(self.programs[program])
        except CudaError as error:
            self.log = str(error)
            raise self.NVRTCError("NVRTC_ERROR_COMPILATION (6)") from None

    def getCUBIN(self, program: int) -> bytes:
        return self.programs[program].encode()

    def getProgramLog(self, program: int) -> str:
        return self.log

    def destroyProgram(self, program: int) -> None:
        self.programs[program] = ""


class FakeModule:
    """cupy.cuda.Module: machine code that was loaded."""

    def __init__(self, cupy: FakeCupy):
        self._cupy = cupy

    def load(self, cubin: bytes) -> None:
        self._module = module(cubin.decode())

    def get_function(self, name: str) -> Callable[..., None]:
        def launch(grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
            cupy = self._cupy
            for a in args:
                if not isinstance(a, cupy.ndarray | np.generic):
                    raise TypeError(f"Unsupported type {type(a)}")
                if isinstance(a, cupy.ndarray):
                    cupy.check_device(a)
            values = [a._data if isinstance(a, cupy.ndarray) else a for a in args]
            cupy.counts.kernels += 1
            cupy.submit(lambda: self._run(name, grid, block, values))

        return launch

    def _run(self, name: str, grid: tuple[int, ...], block: tuple[int, ...], values: list[Any]) -> None:
        """In one order of threads, or in several that must agree."""
        arrays = [v for v in values if isinstance(v, np.ndarray)]
        before = [a.copy() for a in arrays] if len(self._cupy.orders) > 1 else []
        results: list[list[bytes]] = []
        for order in self._cupy.orders:
            for array, old in zip(arrays, before, strict=False):
                if array.flags.writeable:
                    array[...] = old
            self._module.launch(name, grid, block, values, order)
            results.append([a.tobytes() for a in arrays] if before else [])
        if any(r != results[0] for r in results):
            raise CudaError(f"the results of '{name}' depend on the order of threads: a barrier is missing")


@cache
def module(code: str) -> CpuModule:
    """Compiled once a process."""
    return CpuModule(code)


def cuda_of(cupy: FakeCupy) -> SimpleNamespace:
    """The module cupy.cuda."""
    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=lambda: cupy.gpus,
        getDevice=lambda: cupy.current,
        getDeviceProperties=lambda index: {"name": b"Fake GPU"},
        driverGetVersion=lambda: 13020,
        runtimeGetVersion=lambda: 13020,
    )

    @contextmanager
    def using_allocator(allocator: Any = None) -> Iterator[None]:
        before, cupy.allocator = cupy.allocator, allocator
        try:
            yield
        finally:
            cupy.allocator = before

    def alloc_pinned_memory(size: int) -> memoryview:
        memory = np.zeros(max(size, 1), np.uint8)
        cupy.pinned.append((memory.ctypes.data, memory.ctypes.data + memory.nbytes))
        return memoryview(memory)

    return SimpleNamespace(
        Device=lambda device=None: FakeDevice(cupy, device),
        Stream=lambda **options: FakeStream(cupy, **options),
        Event=lambda **options: FakeEvent(cupy, **options),
        Module=lambda: FakeModule(cupy),
        nvrtc=FakeNvrtc(),
        get_current_stream=lambda: cupy.stream,
        MemoryPool=FakeMemoryPool,
        using_allocator=using_allocator,
        alloc_pinned_memory=alloc_pinned_memory,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=runtime,
    )
