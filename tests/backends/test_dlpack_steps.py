"""Training on arrays of other libraries: the same numbers as with NumPy's."""

from dataclasses import replace

import numpy as np
import pytest
from fakegpu import Counts, FakeCupy
from kit import beside

from gpunet import Trainer, TrainStep, layers, losses, optim
from gpunet.errors import ArrayError

either = beside(__file__, "gpus.py").either
foreign = beside(__file__, "foreign.py")
CUDA, METAL, Foreign, OfGpu, Old = foreign.CUDA, foreign.METAL, foreign.Foreign, foreign.OfGpu, foreign.Old


@pytest.fixture
def gpu(fakegpu):
    return fakegpu()


def batches(count=6, n=8):
    """Inputs, labels and weights: float64 and int64, which a step converts."""
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((n, 5)) for _ in range(count)]
    return [(x, np.argmax(x[:, :3], axis=-1), np.abs(x[:, 0])) for x in inputs]


def trained(backend, convert, capture=True):
    """Losses and weights of some steps, and what the last one cost a fake GPU."""
    model = layers.Sequential(layers.Dense(8), layers.Tanh(), layers.Dropout(0.2), layers.Dense(3))
    model.build((5,), device=backend, seed=1)
    step, values = TrainStep(model, losses.CrossEntropy(), optim.Adam(1e-2), capture=capture), []
    cupy = getattr(backend, "cupy", None)
    fake = cupy if isinstance(cupy, FakeCupy) else FakeCupy()
    for batch in batches():
        given = [convert(array) for array in batch]
        fake.reset()
        values.append(step(*given))
        counts = replace(fake.counts)
    return [float(v) for v in values], model.get_weights(), counts


def assert_same_bits(one, other):
    (values, weights, _), (more_values, more_weights, _) = one, other
    assert values == more_values
    assert all(np.array_equal(w, more_weights[name]) for name, w in weights.items())


@pytest.mark.parametrize("kind", [Foreign, Old])
def test_a_step(backend, kind):
    assert_same_bits(trained(backend, kind), trained(backend, np.asarray))


def test_a_step_on_arrays_of_the_cpu_is_one_graph(gpu):
    """Converted on the host and copied once each, as NumPy's."""
    of_others, of_numpy = trained(gpu, Foreign), trained(gpu, np.asarray)
    assert of_others[2] == of_numpy[2] == Counts(graphs=1, uploads=3, launches=1)


@pytest.mark.parametrize("capture", [True, False])
def test_a_step_on_arrays_of_the_gpu(either, capture):
    of_others = trained(either, lambda array: OfGpu(either.asarray(array)), capture)
    assert_same_bits(of_others, trained(either, np.asarray, capture))


@pytest.mark.parametrize("capture", [True, False])
def test_a_step_on_arrays_of_the_gpu_copies_nothing_from_the_host(gpu, capture):
    """Converted where they are, labels, too."""
    counts = trained(gpu, lambda array: Foreign(array, (CUDA, 0)), capture)[2]
    assert (counts.uploads, counts.downloads, counts.graphs) == (0, 0, capture)


def test_a_step_on_arrays_of_here_and_there(gpu):
    x, y, w = batches(1)[0]
    model = layers.Sequential(layers.Dense(3)).build((5,), device=gpu)
    step = TrainStep(model, losses.CrossEntropy(), optim.SGD(0.0))
    expected = float(step(x, y, w))
    for a in (x, Foreign(x), Foreign(x, (CUDA, 0)), gpu.asarray(x)):
        for b in (y, Foreign(y), Foreign(y, (CUDA, 0)), gpu.asarray(y), y.tolist()):
            for c in (w, Foreign(w, (CUDA, 0))):
                assert float(step(a, b, c)) == expected


def test_a_step_refuses_arrays_of_another_device(backend):
    model = layers.Sequential(layers.Dense(3)).build((5,), device=backend)
    step, far, before = TrainStep(model, losses.CrossEntropy(), optim.SGD(0.1)), (METAL, 0), model.get_weights()
    x, y, w = batches(1)[0]
    for batch in ((Foreign(x, far), y, w), (x, Foreign(y, far), w), (x, y, Foreign(w, far))):
        with pytest.raises(ArrayError, match=r"but got a \S*\.Foreign on metal:0"):
            step(*batch)
    assert step.steps == 0
    assert all(np.array_equal(w, before[name]) for name, w in model.get_weights().items())


def test_predict_and_fit(backend):
    x, y, w = batches(1)[0]

    def run(convert):
        model = layers.Sequential(layers.Dense(3)).build((5,), device=backend)
        trainer = Trainer(model, losses.CrossEntropy(), optim.SGD(0.1), metrics=["accuracy"])
        held_out = convert(x), convert(y)
        history = trainer.fit(convert(x), convert(y), sample_weight=convert(w), validation_data=held_out, verbose=0)
        return history["val_loss"], model.predict(convert(x))

    (loss, prediction), (expected_loss, expected) = run(Foreign), run(np.asarray)
    assert loss == expected_loss
    assert np.array_equal(prediction, expected)
