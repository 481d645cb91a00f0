"""Memory of captured steps on a GPU, and on its stand-in: it does not grow, and nobody else's work touches it."""

from __future__ import annotations

import gc
import warnings
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from kit import beside

gpus = beside(__file__, "../backends/gpus.py")
either, assert_same_bits, is_real, train = gpus.either, gpus.assert_same_bits, gpus.is_real, gpus.train

MIB = 1 << 20
LARGE = {"inputs": 40, "hidden": (300, 70), "classes": 10}


def problem(backend, count):
    """Batches, and the size of a network for them."""
    if not is_real(backend):
        return gpus.batches(min(count, 24)), {}
    return gpus.batches(count, n=64, inputs=LARGE["inputs"], classes=LARGE["classes"]), LARGE


# It does not grow


def held(step) -> dict[str, int]:
    """Bytes by who holds them, plans and pinned copies by number. Synchronises."""
    backend, recorder = step.backend, step._recordings.recorder
    gc.collect()
    backend.synchronize()
    fused = step.model.store._fused.values()
    found = {"plans": sum(len(f._plans) for f in fused), "products": len(backend._products._plans)}
    found |= {"workspaces": len(backend._products.workspaces), "constants": len(step._constants)}
    found |= {"pinned copies": len([e for e in recorder.in_flight if not e[0].done])}
    if is_real(backend):
        with backend.device:
            for name, pool in (("pool", backend.cupy.get_default_memory_pool()), ("graphs", recorder.pool)):
                found |= {f"{name}, used": pool.used_bytes(), f"{name}, total": pool.total_bytes()}
            found["free"] = backend.cupy.cuda.runtime.memGetInfo()[0]
    return found


@pytest.mark.parametrize("where", ["host", "device"])
def test_ten_thousand_replays_hold_no_more_memory(where, either):
    """Nothing waits in between, so that as much is queued as CUDA allows; the first thousand fill the queue, too."""
    (data, size), real = problem(either, 8), is_real(either)
    if where == "device":
        data = [(gpus.put(either, x), gpus.put(either, y)) for x, y in data]
    step = gpus.new_step(either, size=size, clip_norm=1.0)

    def run(count):
        for i in range(count):
            step(*data[i % len(data)])

    run(1100 if real else 10)
    before, made = held(step), gpus.replays(step)
    run(10_000 if real else 40)
    after = held(step)
    assert gpus.replays(step) - made == (10_000 if real else 40)
    free = before.pop("free", 0) - after.pop("free", 0)
    assert after == before
    assert free <= 4 * MIB  # the driver's own; half a kilobyte a step would be more
    run(1)
    assert len(step._recordings.recorder.in_flight) <= (2 if where == "host" else 0)


def vast(rows: int = 1 << 16):
    """A batch of which one array of the large network's first layer takes 75 MiB."""
    return np.zeros((rows, LARGE["inputs"]), np.float32), np.zeros(rows, np.int32)


@pytest.mark.cuda
def test_steps_that_are_dropped_give_their_memory_back(cuda):
    """Each has graphs that work in 200 MiB or more."""
    cupy, free = cuda.cupy, []
    for _ in range(8):
        step = gpus.new_step(cuda, size=LARGE)
        for _ in range(gpus.WARM_UP + 2):
            step(*vast())
        del step
        gc.collect()
        cuda.synchronize()
        cupy.get_default_memory_pool().free_all_blocks()
        free.append(cupy.cuda.runtime.memGetInfo()[0])
    assert free[2] - free[-1] <= 200 * MIB, free  # a product's workspace stays, 32 MiB for each new stream


# Others' work


def add(xp, x, b):
    return xp.tanh(x) * x + b


class Others:
    """What a program does between two steps, on this stream and on another: nothing of it is a step's business."""

    def __init__(self, backend):
        self.backend, self.stream, self.fused = backend, gpus.stream_of(backend), backend.fuse(add)
        large = (1 << 22, 12_000_000) if is_real(backend) else ()
        self.sizes = (1, 7, 128, 640, 4480, 19_200, 65_536, *large)
        self.matrix = gpus.put(backend, np.full((256, 256) if is_real(backend) else (16, 16), np.nan, np.float32))
        self.unharmed = gpus.put(backend, np.eye(16, dtype=np.float32))
        backend.synchronize()

    def __call__(self, i: int) -> None:
        backend = self.backend
        for stream in (nullcontext(), self.stream):
            with backend.scope(), stream:
                arrays = [backend.empty((size,), "float32") for size in self.sizes]
                for array in arrays:
                    array.fill(np.nan)
                self.fused(self.matrix, self.matrix[0])
                backend.gemm(self.matrix, self.matrix, transpose_a=True)
                del arrays[:: 1 + i % 3]
        if i % 5 == 4 and is_real(backend):
            with backend.device:
                backend.cupy.get_default_memory_pool().free_all_blocks()
        if i % 10 == 9:
            gc.collect()
        if i % 7 == 6:
            assert backend.to_numpy(backend.gemm(self.unharmed, self.unharmed)).sum() == 16


@pytest.mark.parametrize("way", ["host", "device"])
@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5, "accumulate": 2}], ids=["plain", "clip, parts"])
def test_work_between_replays_changes_nothing(options, way, either):
    """Arrays of many sizes come, are filled with NaN, and go; formulas and products run; the pool is emptied."""
    data, size = problem(either, 100)
    lay = gpus.put if way == "device" else lambda backend, x: x
    alone = train(either, data, size=size, lay=lay, **options)
    assert_same_bits(train(either, data, size=size, lay=lay, between=Others(either), **options), alone)


# Too little memory


@contextmanager
def limited(backend, most: int, monkeypatch):
    """Larger arrays than that do not fit any more."""
    cupy = backend.cupy
    if is_real(backend):
        with backend.device:
            pool = cupy.get_default_memory_pool()
            pool.free_all_blocks()
            pool.set_limit(size=pool.total_bytes() + most)
            try:
                yield
            finally:
                pool.set_limit(size=0)
        return
    empty = cupy.empty

    def refusing(shape, dtype=np.float64, device=None):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size > most:
            raise cupy.cuda.memory.OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        return empty(shape, dtype, device)

    with monkeypatch.context() as patch:
        patch.setattr(cupy, "empty", refusing, raising=False)
        yield


def test_a_batch_that_does_not_fit_does_no_harm(either, monkeypatch):
    """It raises, and the training goes on as if it had not come: twice, since the third time would be recorded."""
    data, size = problem(either, 30)
    inputs, most = (40, 30 * MIB) if is_real(either) else (5, 20_000)
    rows = most // (3 * 4 * inputs)
    large = np.zeros((rows, inputs), np.float32), np.zeros(rows, np.int32)
    alone = train(either, data, size=size)
    step = gpus.new_step(either, size=size)
    values = []
    for i, (x, y) in enumerate(data):
        if 2 * i == len(data):
            step.optimizer.learning_rate = 1e-3
        values.append(step(x, y))
        if i in (1, 20):
            with limited(either, most, monkeypatch), pytest.raises(MemoryError, match=r"(?i)allocat\w* \d"):
                step(*large)
    assert np.array([float(v) for v in values]).tobytes() == alone["losses"].tobytes()
    weights = step.model.get_weights()
    assert all(w.tobytes() == alone[name].tobytes() for name, w in weights.items())


@pytest.mark.cuda
def test_a_recording_that_does_not_fit_leaves_earlier_graphs_their_memory(cuda):
    """When memory runs out, CuPy's pools give back what is free, and free in a recorder's pool is what graphs work in.

    That is looked at before the graphs are launched again, so that they do not write to memory that is others' now.
    """
    data, size = problem(cuda, 30)
    data[10:10] = [vast()] * 3
    expected = train(cuda, data, size=size, capture=False)
    step, values = gpus.new_step(cuda, size=size), []
    pool = step._recordings.recorder.pool
    for i, (x, y) in enumerate(data):
        if i != 12:
            values.append(step(x, y))
            continue
        cuda.synchronize()
        room = cuda.cupy.cuda.runtime.memGetInfo()[0] - 64 * MIB
        filler, before = cuda.empty((room // 4,), "float32"), pool.total_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it is not captured, unless there was a way
            values.append(step(x, y))
        after = pool.total_bytes()
        del filler
        cuda.cupy.get_default_memory_pool().free_all_blocks()
        assert after >= before
    assert np.array([float(v) for v in values]).tobytes() == expected["losses"].tobytes()
