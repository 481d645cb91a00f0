"""Where batches come from."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from kit import draw

import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.data import Arrays, Batches
from gpunet.errors import ArgumentError, ShapeError

X = draw(0, 50, 4).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64)


def trainer(**options):
    model = layers.Sequential(layers.Dense(8), layers.ReLU(), layers.Dense(2))
    return gn.Trainer(model, losses.CrossEntropy(), optim.Adam(0.02), device="cpu", seed=1, **options)


def weights(t):
    return t.model.get_weights()


def same(a, b):
    return all(np.array_equal(w, b[n]) for n, w in a.items())


def shuffled(epoch=0):
    return list(gn.data.batches(X, Y, 16, seed=1, epoch=epoch))


@pytest.mark.parametrize("kind", ["a list", "a function", "tuples as lists"])
def test_batches_train_as_arrays_in_the_same_order_do(kind):
    arrays, batches = trainer(), trainer()
    arrays.fit(X, Y, epochs=1, batch_size=16, verbose=0)
    source = {
        "a list": shuffled(),
        "a function": lambda: iter(shuffled()),
        "tuples as lists": [list(batch) for batch in shuffled()],
    }[kind]
    batches.fit(source, epochs=1, verbose=0)
    assert same(weights(batches), weights(arrays))
    assert batches.history["loss"] == arrays.history["loss"]
    assert batches.evaluate(source)["loss"] == pytest.approx(arrays.evaluate(X, Y)["loss"], rel=1e-6)


def test_validation_data_may_be_batches_and_have_metrics():
    t = trainer(metrics=["accuracy"])
    t.fit(shuffled(), epochs=1, validation_data=shuffled(1), verbose=0)
    assert set(t.history.epochs[0]) == {"loss", "val_loss", "val_accuracy"}
    assert t.history["val_accuracy"][0] == t.evaluate(X, Y)["accuracy"]


def test_a_pytorch_data_loader():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    data = torch.utils.data.TensorDataset(torch.tensor(X), torch.tensor(Y))
    loader = torch.utils.data.DataLoader(data, batch_size=16)
    one, two = trainer(), trainer()
    one.fit(loader, epochs=2, validation_data=loader, verbose=0)
    two.fit([(X[i : i + 16], Y[i : i + 16]) for i in range(0, 50, 16)], epochs=2, verbose=0)
    assert same(weights(one), weights(two))
    tensors = trainer()
    tensors.fit(torch.tensor(X), torch.tensor(Y), verbose=0)
    arrays = trainer()
    arrays.fit(X, Y, verbose=0)
    assert same(weights(tensors), weights(arrays))
    assert np.array_equal(tensors.predict(torch.tensor(X)), arrays.predict(X))


def test_no_batch_of_a_generator_is_lost_when_the_model_is_built():
    one, two = trainer(), trainer()
    one.fit(iter(shuffled()), verbose=0)
    two.model.build((4,), device="cpu", seed=1)
    two.fit(iter(shuffled()), verbose=0)
    assert one._step.steps == two._step.steps == 4
    assert same(weights(one), weights(two))


def test_a_generator_that_has_ended_is_told_from_the_function_that_makes_it():
    t = trainer()
    with pytest.raises(
        ArgumentError, match=r"no batches, or no more: a generator ends after one epoch\. Give fit the fun"
    ):
        t.fit(iter(shuffled()), epochs=2, verbose=0)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (7, r"fit takes arrays x and y, or something that yields batches \(x, y\), but got a int"),
        ([X], r"a batch is \(x, y\) or \(x, y, sample_weight\), but got a ndarray"),
        ([(X, Y, Y, Y)], "but got 4 parts"),
        ([], "there are no batches, or no more"),
        (X, "there are inputs x but no targets y"),
    ],
)
def test_what_yields_no_batches_is_refused(source, message):
    t = trainer()
    with pytest.raises(ArgumentError, match=message):
        t.fit(source, verbose=0)
    assert t.model.built is None


def test_options_that_need_arrays():
    with pytest.raises(ArgumentError, match=r"validation_split needs arrays\. Give validation_data for batches"):
        trainer().fit(shuffled(), validation_split=0.5, verbose=0)


def test_batches_of_another_width_are_refused():
    t = trainer()
    t.fit(shuffled(), verbose=0)
    with pytest.raises(ShapeError, match=r"but got \(16, 3\)"):
        t.fit([(X[:16, :3], Y[:16])], verbose=0)


def test_skipping_goes_on_where_it_was():
    for source in (Arrays(X, Y), Arrays(X, Y).split(0.3, 0)[0], Batches(shuffled())):
        whole, rest = (list(source.shuffled(16, 3, 2, skip)) for skip in (0, 2))
        assert len(whole) == len(rest) + 2
        assert all(
            np.array_equal(a, b)
            for one, two in zip(whole[2:], rest, strict=True)
            for a, b in zip(one, two, strict=True)
        )


def test_rows_of_a_split_are_those_of_the_function():
    train, held_out = Arrays(X, Y).split(0.3, 5)
    (x, y), (vx, vy) = gn.data.split(X, Y, fraction=0.3, seed=5)
    for part, (px, py) in ((train, (x, y)), (held_out, (vx, vy))):
        found = list(part.in_order(7))
        assert np.array_equal(np.concatenate([a for a, _ in found]), px)
        assert np.array_equal(np.concatenate([b for _, b in found]), py)


TRAIN = """
import sys
import numpy as np
import gpunet as gn
from gpunet import layers, losses, optim

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) / 1024

x, y = np.load(sys.argv[1], mmap_mode="r"), np.load(sys.argv[2])
model = layers.Sequential(layers.Dense(16), layers.ReLU(), layers.Dense(2))
trainer = gn.Trainer(model, losses.CrossEntropy(), optim.Adam(), metrics=["accuracy"], device="cpu")
trainer.fit(np.zeros((512, x.shape[1]), "f4"), np.zeros(512, int), batch_size=256, verbose=0)
before = anonymous()
trainer.fit(x, y, batch_size=256, validation_split=0.1, verbose=0)
print(anonymous() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_memory_mapped_file_is_not_read_into_memory(tmp_path):
    """200 MB here, 2 GB in benchmarks/memory.py: what stays is a batch, and the order of the samples."""
    n = 50_000
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, 1000))
    for start in range(0, n, 5000):
        x[start : start + 5000] = 1.0
    x.flush()
    del x
    np.save(tmp_path / "y.npy", np.arange(n) % 2)
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 60
