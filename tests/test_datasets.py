"""The embedded data sets: sizes, splits, units, and scikit-learn's numbers where that is installed."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet import Trainer, datasets, layers, losses, metrics, optim

TABLES = [("breast_cancer", datasets.breast_cancer, 456, 113, 30), ("diabetes", datasets.diabetes, 354, 88, 10)]
tables = pytest.mark.parametrize(("name", "load", "train", "test", "columns"), TABLES, ids=[t[0] for t in TABLES])


def raw(name):
    """(x, y) as scikit-learn has them: float64, in the file's order."""
    sk = pytest.importorskip("sklearn.datasets")
    return getattr(sk, f"load_{name}")(return_X_y=True, **{"scaled": False} if name == "diabetes" else {})


@tables
def test_sizes_types_and_order_in_memory(name, load, train, test, columns):
    for (x, y), n in zip(load(), (train, test), strict=True):
        assert (x.shape, y.shape) == ((n, columns), (n, 1))
        assert x.dtype == y.dtype == np.float32
        assert x.flags.c_contiguous
        assert y.flags.c_contiguous


@tables
def test_the_training_part_is_standardised(name, load, train, test, columns):
    (x, _), (x_test, _) = load()
    wide = x.astype(np.float64)
    assert abs(wide.mean(0)).max() < 1e-6
    assert abs(wide.std(0) - 1).max() < 1e-6
    assert 1e-3 < abs(x_test.mean(0)).max() < 0.5  # by the same numbers, not its own


@tables
def test_the_split_is_fixed_and_disjoint(name, load, train, test, columns):
    first, again = load(), load()
    assert all(
        np.array_equal(a, b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True)
    )
    rows = [{row.tobytes() for row in x} for x, _ in first]
    assert [len(r) for r in rows] == [train, test]  # no sample is there twice
    assert not rows[0] & rows[1]


def test_malignant_tumours_are_1_and_stratified():
    (x, y), (_, y_test) = datasets.breast_cancer()
    assert [np.bincount(labels[:, 0].astype(int)).tolist() for labels in (y, y_test)] == [[286, 170], [71, 42]]
    assert x[y[:, 0] == 1, 0].mean() > x[y[:, 0] == 0, 0].mean() + 1  # the radius


def test_progression_is_in_raw_units():
    (_, y), (_, y_test) = datasets.diabetes()
    assert (y.min(), y.max()) == (25, 346)
    assert abs(y.mean() - 152) < 0.5
    assert abs(y.std() - 77) < 0.5
    assert np.array_equal(np.concatenate([y, y_test]) % 1, np.zeros((442, 1)))


@tables
def test_every_fifth_of_scikit_learns_samples_is_a_test_sample(name, load, train, test, columns):
    """The parts hold its samples, all of them and in its order, to what float32 holds."""
    x, y = raw(name)
    y = 1 - y if name == "breast_cancer" else y  # 0 is malignant there
    groups = [np.nonzero(y == label)[0] for label in (0, 1)] if name == "breast_cancer" else [np.arange(len(y))]
    is_test = np.isin(np.arange(len(y)), [i for group in groups for i in group[4::5]])
    scaled = (x - x[~is_test].mean(0)) / x[~is_test].std(0)
    for (found_x, found_y), part in zip(load(), (~is_test, is_test), strict=True):
        assert np.array_equal(found_y[:, 0], y[part])
        assert abs(found_x - scaled[part]).max() < 2e-6


@tables
def test_the_file_holds_the_published_decimals(name, load, train, test, columns):
    """Rounded to float32, they are read as the numbers that were written."""
    from gpunet.backend import host

    x, _ = raw(name)
    stored = host().load(f"{datasets.__path__[0]}/{name}.npz")["x"]
    assert stored.dtype == np.float32
    assert np.array_equal(stored.astype(str).astype(np.float64), x)


def test_a_line_learns_them():
    """What scikit-learn's linear models reach: accuracy 0.99 and r2 0.45."""
    (x, y), (x_test, y_test) = datasets.breast_cancer()
    trainer = Trainer(layers.Sequential(layers.Dense(1)), losses.BinaryCrossEntropy(), optim.Adam(0.02), device="cpu")
    trainer.fit(x, y, epochs=30, verbose=0)
    assert metrics.f1(trainer.model.predict(x_test), y_test, trainer.loss) > 0.95
    (x, y), (x_test, y_test) = datasets.diabetes()
    trainer = Trainer(layers.Sequential(layers.Dense(1)), losses.MeanSquaredError(), optim.Adam(0.02), device="cpu")
    trainer.fit(x, (y - 152) / 77, epochs=30, verbose=0)
    assert metrics.r2(trainer.model.predict(x_test) * 77 + 152, y_test, trainer.loss) > 0.4
