"""A training step as one CUDA graph, on a GPU and on its stand-in: the same bits as kernel by kernel."""

from __future__ import annotations

import warnings
from itertools import cycle

import numpy as np
import pytest
from kit import beside

from gpunet_backends.cuda_ import CudaFused

captured_step = beside(__file__, "test_captured_step.py")
refusals = beside(__file__, "test_captured_refusals.py")
gpus = beside(__file__, "../backends/gpus.py")
either, tensor_cores, train, assert_same_bits = gpus.either, gpus.tensor_cores, gpus.train, gpus.assert_same_bits

LARGE = {"inputs": 40, "hidden": (300, 70), "classes": 10}
OPTIONS = {
    "plain": {},
    "float64": {"dtype": "float64"},
    "bfloat16": {"dtype": "mixed_bfloat16"},
    "float16, clip": {"dtype": "mixed_float16", "clip_norm": 0.5},
    "clip": {"clip_norm": 0.5},
    "parts": {"accumulate": 2},
    "clip, parts": {"clip_norm": 0.5, "accumulate": 2},
}


def problem(backend, count=100, **options):
    """Batches, each fifth of them smaller, and the size of a network for them; fewer and small without a GPU."""
    real = gpus.is_real(backend)
    size = LARGE if real else {}
    like = {name: size[name] for name in ("inputs", "classes") if name in size}
    made = gpus.batches(count if real else 16, n=64 if real else 8, **like, **options)
    return [(x[:-3], y[:-3]) if i % 5 == 4 else (x, y) for i, (x, y) in enumerate(made)], size


# Where the inputs are


turns = cycle([gpus.unaligned, gpus.apart])


def host(backend, x):
    return x


def crooked(backend, x):
    """Not aligned, or, as far as there are rows, in turn parts of wider ones."""
    return gpus.unaligned(backend, x) if x.ndim == 1 else next(turns)(backend, x)


WAYS = {"host": host, "device": gpus.put, "crooked": crooked}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("on", ["default stream", "own stream"])
def test_captured_equals_eager_bit_for_bit(on, way, options, either):
    """100 steps with dropout and Adam, another learning rate half-way, a smaller batch now and then.

    Eager steps get the batch from the host: what lies crookedly on the GPU is laid straight for a graph.
    """
    data, size = problem(either, dtype="float64" if options.get("dtype") == "float64" else "float32")
    eager = train(either, data, capture=False, size=size, **options)
    stream = gpus.stream_of(either) if on == "own stream" else None
    captured = train(either, data, lay=WAYS[way], stream=stream, size=size, **options)
    assert_same_bits(captured, eager)


def test_two_runs_at_the_same_time(either):
    """Steps of two models alternate, each on a stream of its own."""
    data, size = problem(either)
    alone = train(either, data, size=size)
    streams = [gpus.stream_of(either) for _ in range(2)]
    steps = []
    for stream in streams:
        with either.scope(), stream:
            steps.append(gpus.new_step(either, size=size))
    values = [[], []]
    for i, (x, y) in enumerate(data):
        for step, stream, losses in zip(steps, streams, values, strict=True):
            if 2 * i == len(data):
                step.optimizer.learning_rate = 1e-3
            with either.scope(), stream:
                losses.append(step(x, y))
    either.synchronize()
    for losses in values:
        assert np.array([float(v) for v in losses]).tobytes() == alone["losses"].tobytes()


def test_a_captured_step_in_tf32_equals_an_eager_one(tensor_cores):
    data, size = problem(tensor_cores, count=40)
    captured = train(tensor_cores, data, size=size)
    assert_same_bits(captured, train(tensor_cores, data, capture=False, size=size))


# What is launched


class Counted:
    """A graph, and how often it was launched."""

    def __init__(self, graph):
        self.graph, self.launches = graph, 0

    def launch(self, stream=None):
        self.launches += 1
        self.graph.launch(stream)


@pytest.mark.parametrize("way", ["host", "device"])
def test_a_captured_step_launches_one_graph(way, either, monkeypatch):
    """And none of the work that was recorded runs as well; the fake GPU counts copies, too."""
    (data, size), warm = problem(either), gpus.WARM_UP + 3
    step = gpus.new_step(either, size=size, clip_norm=1.0)
    data = [(WAYS[way](either, x), WAYS[way](either, y)) for x, y in data[:9]]
    for x, y in data[:warm]:
        step(x, y)
    (recording,) = step._recordings._made.values()
    graphs = [Counted(slot.graph) for slot in recording.slots]
    for slot, graph in zip(recording.slots, graphs, strict=True):
        slot.graph = graph
    monkeypatch.setattr(step, "_work", None)
    monkeypatch.setattr(either, "gemm", None)
    monkeypatch.setattr(CudaFused, "__call__", None)
    for n, (x, y) in enumerate(data[warm:], start=1):
        step(x, y)
        assert sum(graph.launches for graph in graphs) == n
    assert len(graphs) == (2 if way == "host" else 1)


def test_a_layer_that_waits_runs_kernel_by_kernel(either):
    """The recording fails, says so once, and leaves the GPU as it was: other steps are recorded."""
    values, batches = [], captured_step.batches(6)
    for capture in (True, False):
        step = captured_step.make(either, refusals.Waiting(), capture=capture)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            values.append([float(step(x, y)) for x, y in batches])
        assert ["not captured as one graph" in str(w.message) for w in told] == [True] * capture
    assert values[0] == values[1]
    data, size = problem(either, count=20)
    assert_same_bits(train(either, data, size=size), train(either, data, size=size, capture=False))


# Host arrays belong to the caller


def test_the_caller_may_overwrite_its_arrays(either):
    """At once, while the GPU still works on the steps before: it is given much to do, and nothing waits."""
    real = gpus.is_real(either)
    size = {"inputs": 512, "hidden": (4096, 4096), "classes": 10} if real else {}
    like = {"n": 1024, "inputs": 512, "classes": 10} if real else {}
    made = gpus.batches(20, **like)
    data = [made[i % len(made)] for i in range(200 if real else 30)]
    given = []

    def handed_over(backend, x):
        given.append(x.copy())
        return given[-1]

    def overwrite(i):
        for x in given:
            x[...] = np.nan if x.dtype.kind == "f" else -1
        given.clear()

    expected = train(either, data, size=size, wait=True)
    assert_same_bits(train(either, data, size=size, lay=handed_over, between=overwrite), expected)
