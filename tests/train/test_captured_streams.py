"""Streams, events and memory of captured steps: on the fake GPU, which notes what is asked of CUDA."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from kit import beside

from gpunet import layers, losses, optim
from gpunet.train.step import TrainStep
from gpunet_backends.cuda_plan import is_ready
from gpunet_backends.cupy_ import CupyBackend

captured = beside(__file__, "captured.py")
WARM, batches, make, warm = captured.WARM, captured.batches, captured.make, captured.warm


@pytest.fixture
def gpu(fakegpu) -> CupyBackend:
    return fakegpu()


def test_inputs_are_copied_while_the_graph_before_runs(gpu):
    """On a stream of their own, as soon as the graph that read the same memory is done: the last but one."""
    step = warm(gpu)
    gpu.cupy.order.clear()
    for x, y in batches(4):
        step(x, y)
    order = gpu.cupy.order
    copies = {ptr for what, ptr, _ in order if what == "copy"}
    (copy_stream,) = copies
    assert copy_stream != 0
    done = {}  # event -> the graph it follows
    read = []  # graph launches, each with the arrays it read
    for i, (what, ptr, thing) in enumerate(order):
        if what == "graph":
            assert ptr == 0
            arrived = order[i - 1]
            assert arrived[:2] == ("wait", 0)  # for its inputs
            assert ("record", copy_stream, arrived[2]) in order[:i]
            read.append(thing)
            assert order[i + 1][:2] == ("record", 0)
            done[order[i + 1][2]] = thing
    assert read[0] is read[2] is not read[1] is read[3]
    waits = [thing for what, ptr, thing in order if (what, ptr) == ("wait", copy_stream)]
    assert [done[event] for event in waits] == read  # before new inputs come, the graph that reads them is done


def test_pinned_memory_is_kept_until_it_has_been_read(gpu):
    step = warm(gpu)
    recorder = step._recordings.recorder
    gpu.cupy.late = True
    kept = len(recorder.in_flight)
    for x, y in batches(3):
        step(x, y)
    assert len(recorder.in_flight) >= kept + 2
    memory = [m.obj.ctypes.data for _, arrays in recorder.in_flight for m in arrays]
    assert len(set(memory)) == len(memory)
    gpu.cupy.late = False
    step(*batches(1)[0])
    assert len(recorder.in_flight) == 1


def test_nothing_is_left_behind(gpu):
    """No memory grows with the number of steps."""
    step = warm(gpu)
    step(*batches(1)[0])
    plans = [len(f._plans) for f in step.model.store._fused.values()]
    pinned = len(step._recordings.recorder.in_flight)
    for x, y in batches(20):
        step(x, y)
    assert [len(f._plans) for f in step.model.store._fused.values()] == plans
    assert len(step._recordings.recorder.in_flight) == pinned
    assert len(step._constants) == 3  # the seed, two draws


def test_a_second_gpu(fakegpu):
    step = warm(fakegpu(1, gpus=2))
    assert step.backend.index == 1
    value = step(*batches(1)[0])
    assert value.device.id == 1
    assert step.backend.cupy.counts.graphs == 1
    assert step.backend.cupy.cuda.runtime.getDevice() == 0


def test_no_stream_waits_for_what_was_not_recorded(gpu):
    """Such an event counts as done. Before the first copy comes the work of whoever had the memory until then."""
    step = make(gpu)
    for x, y in batches(WARM + 4):
        step(x, y)
    recorded = {}
    for what, ptr, thing in gpu.cupy.order:
        if what == "wait":
            assert recorded[thing] != ptr
        elif what == "record":
            recorded[thing] = ptr
    slots = [slot for made in step._recordings._made.values() for slot in made.slots]
    assert len(slots) == 2
    for slot in slots:  # from the stream of the caller, before anything is copied
        events = [(what, ptr) for what, ptr, thing in gpu.cupy.order if thing is slot.free]
        assert events[0] == ("record", 0)


@dataclass(eq=False, kw_only=True, repr=False)
class Watching(layers.ReLU):
    """Notes whose memory it gets."""

    def operands(self, ctx):
        seen.append((ctx.backend.cupy.recorded is not None, ctx.backend.cupy.allocator))
        return super().operands(ctx)


seen: list[tuple[bool, object]] = []


def test_all_graphs_share_the_memory_of_the_recorder(gpu):
    """Of what is temporary. It stays theirs for as long as they may be launched."""
    seen.clear()
    step = make(gpu, Watching())
    for n in (8, 6):
        for x, y in batches(WARM + 3, n):
            step(x, y)
    pool = step._recordings.recorder.pool
    assert {allocator for recorded, allocator in seen if recorded} == {pool.malloc}
    assert {allocator for recorded, allocator in seen if not recorded} == {None}
    assert gpu.cupy.allocator is None


# Inputs


def spread(gpu, x):
    """Every other element of an array on the GPU."""
    wide = gpu.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype.name)
    wide[..., ::2] = gpu.asarray(x)
    return wide[..., ::2]


def shifted(gpu, x):
    """It begins one element into its memory."""
    flat = gpu.zeros((x.size + 1,), x.dtype.name)[1:]
    result = flat.reshape(x.shape)
    result[...] = gpu.asarray(x)
    return result


@pytest.mark.parametrize("lay", [spread, shifted])
def test_what_is_recorded_has_run_before_on_inputs_of_its_layout(gpu, lay):
    """Else plans are made, and kernels compiled and loaded, while a stream captures."""
    step = make(gpu)
    made = []
    for x, y in batches(WARM + 2):
        step(lay(gpu, x), lay(gpu, y.astype(np.int32)))
        made.append((len(gpu.kernels._made), [len(f._plans) for f in step.model.store._fused.values()]))
    assert gpu.cupy.counts.graphs == 2
    assert made[WARM - 1 :] == [made[-1]] * 3


def test_inputs_are_placed_where_a_graph_would_have_them(gpu):
    x = batches(1)[0][0]
    ready = gpu.asarray(x)
    placed = make(gpu)._recordings.recorder.placed([ready, x, spread(gpu, x), shifted(gpu, x)])
    assert placed[0] is ready
    for one in placed:
        assert is_ready(one)
        assert np.array_equal(one._data, x)


class AsTheyAre(losses.CrossEntropy):
    """A user's loss: the library's own give targets one type."""

    def convert(self, target, backend, dtype):
        return backend.asarray(target)


@pytest.mark.parametrize("where", ["host", "device"])
def test_targets_of_another_type_are_another_recording(gpu, where):
    """A graph reads labels of one type; 300 is 44 in int8."""
    model = layers.Sequential(layers.Dense(400)).build((5,), device=gpu)
    step, values = TrainStep(model, AsTheyAre(), optim.SGD(0.0)), []
    x = batches(1)[0][0]
    for labels in (np.full(8, 44, np.int8), np.full(8, 300, np.int16)):
        for _ in range(WARM + 1):
            given = (x, labels) if where == "host" else (gpu.asarray(x), gpu.asarray(labels))
            values.append(float(step(*given)))
    assert gpu.cupy.counts.graphs == 2
    assert values[0] == values[WARM] != values[WARM + 1] == values[-1]
