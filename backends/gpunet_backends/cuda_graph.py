"""CUDA graphs: work that is recorded once and launched as a whole."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import numpy as np

from gpunet.backend import Array
from gpunet_backends.cublas_lt import LtMatmul
from gpunet_backends.cuda_plan import is_ready

OUT_OF_MEMORY = 2
"""Number of a CUDA error."""
MOST_AHEAD = 16
"""Calls whose host inputs may wait to be copied; else a host that is much faster than the GPU would fill its memory."""


class Recorder:
    """Records work of one GPU. What it records shares temporary memory, so launches belong on one stream.

    pool         memory of what is temporary inside graphs: nobody else gets it between two launches
    stream       on which work is recorded; nothing runs there
    copy_stream  on which inputs are copied from the host, while the graph before runs
    in_flight    events of arrival, each with the pinned memory that was read until then; the oldest first
    alive        recordings that may still be launched
    """

    def __init__(self, cupy: Any, products: LtMatmul):
        self.cupy, self.products, self.device = cupy, products, cupy.cuda.Device()
        self.pool = cupy.cuda.MemoryPool(partial(allocate, cupy))
        self.pool.set_limit(size=0)  # where there is one, CuPy's pool gives back free blocks to stay below it
        self.stream, self.copy_stream = (cupy.cuda.Stream(non_blocking=True) for _ in range(2))
        self.in_flight: deque[tuple[Any, Any]] = deque()
        self.alive = 0

    def record(self, work: Callable[..., Array], inputs: Sequence[Array]) -> Recording:
        """Record ``work(*inputs)``, which returns one array. Nothing is computed. It must have run like this before.

        Raises whatever the work raises, or what CUDA says of it: copies from and to the host, and waiting, are refused.
        """
        self.alive += 1
        self.cupy.get_default_memory_pool().free_all_blocks()  # synchronises: what a step needed goes to the graph
        try:
            return Recording(self, work, inputs)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """One recording less. After the last one, its memory goes back to the GPU, which waits for its work to end."""
        self.alive -= 1
        if self.alive == 0:
            with self.device:
                self.copy_stream.synchronize()  # synchronises: pinned memory is read until then
                self.in_flight.clear()
                self.products.forget(self.stream.ptr)
                self.pool.free_all_blocks()

    def placed(self, inputs: Sequence[Any]) -> list[Array]:
        """Inputs on the GPU, aligned and contiguous as those of a graph: what runs on them prepares for recording."""
        arrays = [x if isinstance(x, self.cupy.ndarray) else self.cupy.asarray(x) for x in inputs]
        return [x if is_ready(x) else x.copy() for x in arrays]

    def upload(self, targets: Sequence[Array], sources: Sequence[Any], free: Any) -> Any:
        """Copy host arrays once the event ``free`` has happened, without waiting here; -> the event of their arrival.

        The copy in pinned memory that the GPU reads is kept until it has arrived.
        """
        cuda = self.cupy.cuda
        while self.in_flight and self.in_flight[0][0].done:
            self.in_flight.popleft()
        if len(self.in_flight) >= MOST_AHEAD:
            self.in_flight.popleft()[0].synchronize()  # synchronises: the host is sixteen batches ahead
        self.copy_stream.wait_event(free)
        arrived, kept = cuda.Event(disable_timing=True), []
        for target, source in zip(targets, sources, strict=True):
            memory = cuda.alloc_pinned_memory(source.nbytes)
            pinned = np.frombuffer(memory, source.dtype, source.size).reshape(source.shape)
            pinned[...] = source
            target.set(pinned, stream=self.copy_stream)
            kept.append(memory)
        arrived.record(self.copy_stream)
        self.in_flight.append((arrived, kept))
        return arrived


class Recording:
    """Recorded work: a call copies the inputs to where the graph reads them, launches it, and copies the result.

    Inputs from the host alternate between two graphs, so that those of the next call can be copied meanwhile.
    """

    def __init__(self, recorder: Recorder, work: Callable[..., Array], inputs: Sequence[Array]):
        self.work, self.like, self.calls = work, [(x.shape, x.dtype) for x in inputs], 0
        self.slots = [Slot(recorder, work, self.like)]
        self.recorder = recorder

    def __call__(self, *inputs: Any) -> Array:
        """The result for these inputs, all of this GPU or all of the host, as a fresh array. Nothing waits."""
        cuda = self.recorder.cupy.cuda
        current = cuda.get_current_stream()
        from_host = isinstance(inputs[0], np.ndarray)
        if from_host and self.calls == 1:
            with suppress(Exception):  # too little memory, say: then a copy waits for the graph before
                self.slots.append(Slot(self.recorder, self.work, self.like))
        slot = self.slots[self.calls % len(self.slots)]
        self.calls += 1
        if from_host:
            current.wait_event(self.recorder.upload(slot.inputs, inputs, slot.free))
        else:
            for target, source in zip(slot.inputs, inputs, strict=True):
                target[...] = source
        slot.graph.launch()
        slot.free.record(current)
        return slot.result.copy()

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the process CuPy may be gone already
            self.slots.clear()
            self.recorder.release()


class Slot:
    """A graph with the arrays it reads and the one it writes.

    free  the event after which the inputs may be overwritten
    """

    def __init__(self, recorder: Recorder, work: Callable[..., Array], like: Sequence[tuple[Any, Any]]):
        cupy, stream = recorder.cupy, recorder.stream
        self.inputs = [cupy.empty(shape, dtype) for shape, dtype in like]
        self.free = cupy.cuda.Event(disable_timing=True)
        self.free.record(cupy.cuda.get_current_stream())  # whoever had this memory before is done
        with without_collector(), stream, cupy.cuda.using_allocator(recorder.pool.malloc):
            stream.begin_capture()
            try:
                self.result = work(*self.inputs)
                self.graph = stream.end_capture()
            except BaseException:
                abandon(recorder)
                raise


@contextmanager
def without_collector() -> Iterator[None]:
    """Garbage waits: a graph that is collected gives its memory back, which would end the recording of another."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def allocate(cupy: Any, size: int) -> Any:
    """Memory for a pool of graphs.

    When memory runs out, CuPy's pool gives back its free blocks, and what is temporary in graphs is free to its
    knowledge. So the common pool gives back its own instead, and the error that CuPy's pool acts upon is not raised.
    """
    cuda = cupy.cuda
    for free in (cupy.get_default_memory_pool().free_all_blocks, None):
        try:
            return cuda.MemoryPointer(cuda.Memory(size), 0)
        except cuda.runtime.CUDARuntimeError as error:
            if error.status != OUT_OF_MEMORY:
                raise
        if free is not None:
            free()
    raise cuda.memory.OutOfMemoryError(size, -1)


def abandon(recorder: Recorder) -> None:
    """End a recording that failed. The stream may be left unusable: the next one gets another."""
    with suppress(Exception):  # CUDA says once more that it failed
        recorder.stream.end_capture()
    recorder.stream = recorder.cupy.cuda.Stream(non_blocking=True)
