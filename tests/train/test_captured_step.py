"""A training step as one CUDA graph: on the fake GPU, where the kernels' CUDA sources run on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from fakegpu import Counts
from kit import beside

from gpunet import layers, losses, optim
from gpunet.train import recorded
from gpunet.train.step import TrainStep
from gpunet_backends.cupy_ import CupyBackend

captured = beside(__file__, "captured.py")
WARM, network, batches, make, warm = captured.WARM, captured.network, captured.batches, captured.make, captured.warm


@pytest.fixture
def gpu(fakegpu) -> CupyBackend:
    return fakegpu()


# What it costs


def test_a_step_on_host_arrays(gpu):
    """One graph, one upload for each input, one copy of the loss. Labels are converted on the host."""
    step = warm(gpu, clip_norm=1.0)
    step(*batches(1)[0])
    assert gpu.cupy.counts == Counts(graphs=1, uploads=2, launches=1)


def test_a_step_on_device_arrays(gpu):
    """One graph, a copy of each input to where the graph reads it, one copy of the loss."""
    step = make(gpu)
    x, y = batches(1)[0]
    x, y = gpu.asarray(x), gpu.asarray(y.astype(np.int32))
    for _ in range(WARM + 1):
        step(x, y)
    gpu.cupy.reset()
    step(x, y)
    assert gpu.cupy.counts == Counts(graphs=1, launches=3)


def test_sample_weights_are_one_input_more(gpu):
    """With labels that count differently, too: their number is summed up inside the graph."""

    def run(capture):
        loss = losses.CrossEntropy(class_weights=[1.0, 2.0, 3.0], ignore_label=2)
        step = TrainStep(network(gpu), loss, optim.Adam(1e-2), seed=7, capture=capture)
        for x, y in batches(WARM + 6):
            gpu.cupy.reset()
            value = step(x, y, np.abs(x[:, 0]))
        return gpu.cupy.counts.graphs, float(gpu.to_numpy(value)), step.model.get_weights()

    (graphs, value, weights), (eager_graphs, eager_value, eager) = run(True), run(False)
    assert (graphs, eager_graphs) == (1, 0)
    assert value == eager_value
    assert all(np.array_equal(w, eager[n]) for n, w in weights.items())


def test_an_embedding_is_captured(gpu):
    def run(capture):
        model = layers.Sequential(layers.Embedding(6, 4, padding_index=0), layers.Flatten(), layers.Dense(3))
        step = TrainStep(
            model.build((5,), device=gpu), losses.CrossEntropy(), optim.Adam(1e-2), capture=capture, clip_norm=1.0
        )
        for seed in range(WARM + 6):
            x = np.random.default_rng(seed).integers(0, 6, (8, 5))
            gpu.cupy.reset()
            step(x, x[:, 0] % 3)
        assert gpu.cupy.counts.graphs == capture
        return model.get_weights()

    captured_weights, eager = run(True), run(False)
    assert all(np.array_equal(w, eager[n]) for n, w in captured_weights.items())


def test_a_new_learning_rate_is_one_launch_more(gpu):
    step = warm(gpu)
    step.optimizer.learning_rate = 0.25
    for expected in (2, 1):
        gpu.cupy.reset()
        step(*batches(1)[0])
        assert gpu.cupy.counts == Counts(graphs=1, uploads=2, launches=expected)


def test_every_kernel_of_the_formulas_is_ours(gpu):
    """What CuPy itself computes in a step: the two counters, and gradients that nobody wrote."""
    step = warm(gpu)
    calls = []
    call = gpu.cupy.call
    gpu.cupy.call = lambda function, *args, **options: calls.append(function) or call(function, *args, **options)
    step.seed = 8  # another signature: two steps kernel by kernel
    step(*batches(1)[0])
    computed = [f.__name__ for f in calls if f not in (np.reshape, np.matmul)]
    assert computed == ["<lambda>"] * 2  # += 1


# What it computes


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.5}, {"accumulate": 3}], ids=["plain", "clip", "accumulate"])
@pytest.mark.parametrize("where", ["host", "device"])
def test_captured_equals_eager_bit_for_bit(fakegpu, where, options):
    """100 steps with dropout, another learning rate half-way, a smaller batch now and then."""
    runs = []
    for capture in (True, False):
        gpu = fakegpu()
        step = make(gpu, capture=capture, **options)
        values = []
        for i, (x, y) in enumerate(batches(100)):
            x, y = (x[:5], y[:5]) if i % 10 == 9 else (x, y)
            if i == 50:
                step.optimizer.learning_rate = 1e-3
            values.append(step(gpu.asarray(x), gpu.asarray(y)) if where == "device" else step(x, y))
        assert gpu.cupy.counts.graphs == (100 - 2 * WARM if capture else 0)
        runs.append((np.array([float(v) for v in values]), step.model.get_weights(), step.optimizer.state))
    (a, weights_a, state_a), (b, weights_b, state_b) = runs
    assert a.tobytes() == b.tobytes()
    assert all(weights_a[name].tobytes() == w.tobytes() for name, w in weights_b.items())
    assert all(state_a[name].get().tobytes() == s.get().tobytes() for name, s in state_b.items())
    assert a[-10:].mean() < 0.7 * a[:10].mean()


def test_losses_are_fresh_arrays(gpu):
    step = warm(gpu)
    first = step(*batches(1)[0])
    value = float(first)
    second = step(*batches(2)[1])
    assert float(first) == value != float(second)


def test_inputs_are_not_modified_and_may_be_reused(gpu):
    """The caller's memory is copied before the call returns."""
    step, other = warm(gpu), warm(gpu)
    for x, y in batches(4):
        kept = x.copy()
        mine, yours = step(x, y), other(kept, y)
        assert np.array_equal(x, kept)
        x[:] = np.nan
        assert float(mine) == float(yours)


def test_the_number_of_the_step_may_be_set(gpu):
    """Dropout's masks are those of the number."""
    step = warm(gpu)
    step.optimizer.learning_rate = 0.0
    x, y = batches(1)[0]
    values = []
    for step.steps in (1000, 1001, 1000):
        values.append(float(step(x, y)))
    assert values[0] == values[2] != values[1]
    assert step.steps == 1001


def test_another_seed_is_another_recording(gpu):
    step = warm(gpu)
    step.optimizer.learning_rate = 0.0
    x, y = batches(1)[0]
    values = []
    for step.seed in (7, 8, 7):
        step.steps = 5
        values.append(float(step(x, y)))
    assert values[0] == values[2] != values[1]


# Recordings


def graphs_of(gpu, step, x, y):
    """Launches of graphs in one step."""
    before = gpu.cupy.counts.graphs
    step(x, y)
    return gpu.cupy.counts.graphs - before


def test_the_third_step_of_a_shape_is_recorded(gpu):
    step = make(gpu)
    x, y = batches(1)[0]
    assert [graphs_of(gpu, step, x, y) for _ in range(4)] == [0, 0, 1, 1]
    assert [graphs_of(gpu, step, x[:4], y[:4]) for _ in range(4)] == [0, 0, 1, 1]
    assert graphs_of(gpu, step, x, y) == 1


def test_frozen_parameters_begin_anew(gpu):
    step = warm(gpu)
    weights = step.model.get_weights()
    step.model.freeze("0.*")
    x, y = batches(1)[0]
    assert [graphs_of(gpu, step, x, y) for _ in range(4)] == [0, 0, 1, 1]
    after = step.model.get_weights()
    assert all(np.array_equal(weights[n], after[n]) == n.startswith("0.") for n in weights)


def test_set_weights_reaches_the_graph(gpu):
    step = warm(gpu)
    step.optimizer.learning_rate = 0.0
    weights = step.model.get_weights()
    x, y = batches(1)[0]
    step.steps = 3
    value = float(step(x, y))
    step.model.set_weights({n: w * 2 for n, w in weights.items()})
    step.steps = 3
    assert float(step(x, y)) != value
    step.model.set_weights(weights)
    step.steps = 3
    assert float(step(x, y)) == value


def test_too_many_shapes(gpu):
    step = make(gpu)
    x, y = batches(1)[0]
    for n in (8, 7, 6, 5):
        for _ in range(WARM + 1):
            step(x[:n], y[:n])
    for _ in range(WARM):
        step(x[:4], y[:4])
    with pytest.warns(
        UserWarning, match=r"not captured as one graph.*: inputs of more than 4 shapes or types take turns"
    ):
        assert graphs_of(gpu, step, x[:4], y[:4]) == 0
    for _ in range(WARM + 1):
        assert graphs_of(gpu, step, x[:3], y[:3]) == 0  # filterwarnings = error: said once
    assert graphs_of(gpu, step, x, y) == 1


def test_a_shape_that_is_not_used_any_more_gives_way(gpu, monkeypatch):
    monkeypatch.setattr(recorded, "IDLE", 20)
    step = make(gpu)
    x, y = batches(1)[0]
    for n in (8, 7, 6, 5):
        for _ in range(8):
            step(x[:n], y[:n])
    assert [graphs_of(gpu, step, x[:4], y[:4]) for _ in range(WARM + 1)] == [0, 0, 1]
    assert len(step._recordings._made) == 4
    assert graphs_of(gpu, step, x, y) == 0  # it gave way, and warms up again


def test_not_on_a_cpu(cpu):
    assert cpu.recorder() is None
