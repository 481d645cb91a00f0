"""What a user changes between captured steps counts as it does between others."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from gpunet import layers, losses, optim
from gpunet.errors import ArgumentError, ArrayError
from gpunet.layer import Layer
from gpunet.train.step import TrainStep
from gpunet_backends import cuda_graph
from gpunet_backends.cuda_graph import Slot

X = np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)
Y = np.argmax(X[:, :3], axis=-1)


def make(backend, optimizer=None, **options):
    model = layers.Sequential(layers.Dense(6), layers.Dropout(0.3), layers.Tanh(), layers.Dense(3))
    model.build((5,), device=backend)
    return TrainStep(model, losses.CrossEntropy(), optimizer or optim.Adam(1e-2), seed=3, **options)


@pytest.fixture(params=["cpu", "fakegpu"])
def step(request):
    """After four steps: on the fake GPU they are captured."""
    made = make(request.getfixturevalue("cpu") if request.param == "cpu" else request.getfixturevalue("fakegpu")())
    for _ in range(4):
        made(X, Y)
    return made


def test_gradients_are_there_after_a_step(step):
    """Also when a forward pass in training, which begins new gradients, came in between."""
    model = step.model
    model.forward(model.backend.asarray(X), model.context(training=True))
    step(X, Y)
    assert all(np.any(g != 0) for g in model.get_gradients().values())


def test_another_optimizer(step):
    before = step.model.get_weights()
    step.optimizer = optim.SGD(0.0)
    for _ in range(4):
        step(X, Y)
    assert all(np.array_equal(w, before[n]) for n, w in step.model.get_weights().items())


class Doubled(losses.CrossEntropy):
    def formula(self, xp, prediction, target, weight):
        return super().formula(xp, prediction, target, 2 * weight)


def test_another_loss(step):
    step.optimizer.learning_rate = 0.0
    step.steps = 9
    value = float(step(X, Y))
    step.loss = Doubled()
    for _ in range(4):
        step.steps = 9
        assert float(step(X, Y)) == pytest.approx(2 * value, rel=1e-6)


def norm(model):
    return np.sqrt(sum(np.sum(g**2) for g in model.get_gradients().values()))


def test_another_limit_of_the_norm(step):
    for limit in (1e-3, None, 1e-4):
        step.clip_norm = limit
        for _ in range(4):
            step(X, Y)
            assert norm(step.model) == pytest.approx(limit, rel=1e-3) if limit else norm(step.model) > 1e-2
    with pytest.raises(ArgumentError, match="clip_norm must be positive or None, but got 0"):
        step.clip_norm = 0
    assert step.clip_norm == 1e-4


def test_another_number_of_parts(fakegpu):
    """Of one shape, two signatures: as many products as there are parts."""
    gpu = fakegpu()
    step, works = make(gpu), []
    for step.accumulate in (1, 2):
        for _ in range(4):
            step(X, Y)
    works = [len(made.slots[0].graph.work) for made in step._recordings._made.values()]
    assert len(works) == 2
    assert works[1] > works[0] + 5


@pytest.mark.parametrize("number", [-1, 2**32])
def test_the_number_of_a_step_is_checked(step, number):
    step.steps = number
    with pytest.raises(ArgumentError, match=r"step must be in \[0, 2\*\*32\)"):
        step(X, Y)


def test_an_interrupt_does_not_shift_the_masks(fakegpu, monkeypatch):
    """Between the launch and the end of the call."""
    values = []
    for interrupted in (True, False):
        step = make(fakegpu())
        step.optimizer.learning_rate = 0.0
        for _ in range(4):
            step(X, Y)
        if interrupted:
            with monkeypatch.context() as patch:
                patch.setattr(type(step.model.store), "mark_written", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    step(X, Y)
        values.append([float(step(X, Y)) for _ in range(3)])
    assert values[0] == values[1]


def interrupt(*args):
    raise KeyboardInterrupt


def test_an_array_of_another_gpu_is_named(fakegpu):
    step = make(fakegpu(1, gpus=2))
    with pytest.raises(
        ArrayError, match=r"got an array that is on cuda:0\. Move it with device\.asarray\(x\.get\(\)\)"
    ):
        step(step.backend.cupy.zeros((8, 5), "float32"), Y)


# Memory


def test_a_second_graph_that_does_not_fit_is_done_without(fakegpu, monkeypatch):
    gpu, made = fakegpu(), []
    init = Slot.__init__

    def limited(self, *args):
        made.append(self)
        if len(made) == 2:
            raise MemoryError
        init(self, *args)

    monkeypatch.setattr(Slot, "__init__", limited)
    step, expected = make(gpu), make(fakegpu(), capture=False)
    assert [float(step(X, Y)) for _ in range(8)] == [float(expected(X, Y)) for _ in range(8)]
    assert gpu.cupy.counts.graphs == 6
    assert len(made) == 2


def test_the_last_recording_gives_its_memory_back(fakegpu):
    gpu = fakegpu()
    step = make(gpu)
    for n in (8, 6):
        for _ in range(4):
            step(X[:n], Y[:n])
    pool, workspaces = step._recordings.recorder.pool, gpu._products.workspaces
    count = len(workspaces)
    assert pool.freed == 0
    step.model.freeze("0.*")
    step(X, Y)
    assert pool.freed == 1  # both are forgotten
    assert len(workspaces) == count - 1
    del step
    assert pool.freed == 1


def test_a_recording_that_fails_gives_its_memory_back(fakegpu, monkeypatch):
    class Uploading(layers.Tanh):
        def operands(self, ctx):
            return (ctx.backend.asarray(np.ones(6, np.float32)),)

        def formula(self, xp, x, *operands):
            return xp.tanh(x) * operands[0]

        def derivative(self, xp, dy, x, y, *operands):
            return dy * operands[0]

    gpu = fakegpu()
    model = layers.Sequential(layers.Dense(6), Uploading(), layers.Dense(3)).build((5,), device=gpu)
    step = TrainStep(model, losses.CrossEntropy(), optim.SGD(0.1))
    pool = step._recordings.recorder.pool
    for _ in range(2):
        step(X, Y)
    stream = step._recordings.recorder.stream
    with pytest.warns(UserWarning, match="RecordingError: an array is copied from the host"):
        step(X, Y)
    assert pool.freed == 1
    assert gpu.cupy.recorded is None
    assert step._recordings.recorder.stream is not stream
    assert gpu.cupy.stream.ptr == 0


def test_a_host_that_is_far_ahead_waits(fakegpu):
    """Else its batches would fill the memory."""
    gpu = fakegpu()
    step = make(gpu)
    for _ in range(4):
        step(X, Y)
    gpu.cupy.late = True
    gpu.cupy.reset()
    for _ in range(40):
        step(X, Y)
    recorder = step._recordings.recorder
    assert len(recorder.in_flight) == cuda_graph.MOST_AHEAD
    assert gpu.cupy.counts.synchronisations > 0


class Memory:
    """cupy.cuda.Memory on a GPU with room for some bytes."""

    def __init__(self, size, room):
        if size > room[0]:
            from fakegpu_cuda import CUDARuntimeError

            raise CUDARuntimeError(2, "cudaErrorMemoryAllocation: out of memory")
        room[0] -= size


def test_memory_of_graphs_comes_before_the_cache_of_others(fakegpu):
    """CuPy's pool would give back its own free blocks, in which graphs keep what is temporary."""
    cupy, room = fakegpu().cupy, [100]
    cupy.cuda.Memory = lambda size: Memory(size, room)
    cupy.cuda.MemoryPointer = lambda memory, offset: memory
    cupy.pool.free_all_blocks = lambda: room.__setitem__(0, room[0] + 50)
    cuda_graph.allocate(cupy, 80)
    cuda_graph.allocate(cupy, 60)
    assert room == [10]
    with pytest.raises(MemoryError):
        cuda_graph.allocate(cupy, 200)


class Busy(Layer):
    """Has the collector run while a step is recorded, as it does by itself now and then, where it may."""

    def forward(self, x, ctx):
        if self.backend.cupy.recorded is not None and gc.isenabled():
            gc.collect()
        return x, None

    def backward(self, dy, saved, ctx):
        return dy


def test_garbage_that_is_collected_during_a_recording_waits(fakegpu):
    """An older recording gives its memory back when it is collected, which would end the one that is being made."""
    gpu, before = fakegpu(), gc.get_threshold()
    model = layers.Sequential(layers.Dense(6), Busy(), layers.Dense(3)).build((5,), device=gpu)
    new, old = TrainStep(model, losses.CrossEntropy(), optim.SGD()), make(gpu)
    for _ in range(4):
        old(X, Y)
    gc.collect()
    try:
        gc.set_threshold(10**9)
        old.itself = old  # only the collector finds a cycle
        del old
        for _ in range(3):
            new(X, Y)
        gpu.cupy.reset()
        new(X, Y)
    finally:
        gc.set_threshold(*before)
    assert gpu.cupy.counts.graphs == 1
    assert gc.isenabled()
