"""Trainer.fit, its history, progress, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from kit import draw

import gpunet as gn
from gpunet import data, layers, losses, metrics, optim, schedules
from gpunet.errors import ArgumentError, ArrayError, GpunetError, ShapeError
from gpunet.train.callbacks import JsonlLog, ReduceOnPlateau

X = draw(0, 50, 4).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64)


def trainer(**options):
    model = layers.Sequential(layers.Dense(16), layers.ReLU(), layers.Dense(2))
    return gn.Trainer(model, losses.CrossEntropy(), optim.Adam(0.02), metrics=["accuracy"], device="cpu", **options)


def test_fit_learns_and_records(capsys):
    t = trainer(seed=1)
    history = t.fit(X, Y, epochs=12, batch_size=16, validation_split=0.2)
    assert history is t.history
    assert len(history) == 12
    assert history["loss"][-1] < history["loss"][0] / 2
    assert history["accuracy"][-1] > 0.95
    assert set(history.epochs[0]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 12
    assert lines[-1].startswith("epoch 12/12  loss 0.")
    with pytest.raises(KeyError, match=r"no 'speed' was recorded\. Recorded: accuracy, loss"):
        history["speed"]
    assert repr(history).startswith("History(12 epochs: loss=")


def test_fit_is_repeatable_and_continues():
    one, two = trainer(seed=3), trainer(seed=3)
    one.fit(X, Y, epochs=4, batch_size=16, verbose=0)
    two.fit(X, Y, epochs=2, batch_size=16, verbose=0)
    two.fit(X, Y, epochs=2, batch_size=16, verbose=0)
    assert one.history["loss"] == two.history["loss"]
    assert all(np.array_equal(v, two.model.get_weights()[n]) for n, v in one.model.get_weights().items())


def test_the_epoch_loss_is_weighted_by_samples():
    t = trainer()
    t.optimizer.learning_rate = 0.0
    history = t.fit(X, Y, batch_size=32, verbose=0)  # 32 and 18 samples
    assert history["loss"][0] == pytest.approx(t.evaluate(X, Y)["loss"], rel=1e-6)


@pytest.mark.parametrize("options", [{"class_weights": [1.0, 10.0]}, {"ignore_label": 1}])
def test_the_epoch_loss_is_weighted_by_what_counts_of_a_batch(options):
    t = gn.Trainer(layers.Sequential(layers.Dense(2)), losses.CrossEntropy(**options), optim.SGD(0.0), device="cpu")
    order = np.argsort(Y)
    source = [(X[order[i : i + 7]], Y[order[i : i + 7]]) for i in range(0, 50, 7)]
    assert t.fit(source, verbose=0)["loss"][0] == pytest.approx(t.evaluate(X, Y)["loss"], rel=1e-6)


def test_validation_data_are_used(capsys):
    history = trainer().fit(X, Y, epochs=1, validation_data=(X[:10], Y[:10]), verbose=0)
    assert "val_accuracy" in history.epochs[0]
    assert capsys.readouterr() == ("", "")


def test_a_bar_is_drawn_on_a_terminal(capsys, monkeypatch):
    import sys

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    trainer().fit(X, Y, epochs=2, batch_size=10)
    assert "epoch 2/2" in capsys.readouterr().err


def test_bad_data_are_refused_and_leave_the_model_unbuilt():
    t = trainer()
    with pytest.raises(ArgumentError, match=r"labels must be in \[0, 2\)"):
        t.fit(X, Y + 1, verbose=0)
    assert t.model.built is None
    with pytest.raises(ArrayError, match="integer labels"):
        t.fit(X, Y.astype(float), verbose=0)
    with pytest.raises(
        ArgumentError, match=r"as many inputs as targets, at least one, but got inputs \(50, 4\) and targets \(3,\)"
    ):
        t.fit(X, Y[:3])
    with pytest.raises(ArgumentError, match="epochs must be a whole number, at least 1, but got 0"):
        t.fit(X, Y, epochs=0)
    with pytest.raises(ArgumentError, match=r"batch_size must be a whole number, at least 1, but got 1.5"):
        t.fit(X, Y, batch_size=1.5)
    with pytest.raises(ArgumentError, match="validation_data or validation_split, not both"):
        t.fit(X, Y, validation_data=(X, Y), validation_split=0.1)
    with pytest.raises(ArgumentError, match=r"\(validation_split\) must be in \(0, 1\), but got 1"):
        t.fit(X, Y, validation_split=1)
    with pytest.raises(ArgumentError, match="1 samples cannot be split"):
        t.fit(X[:1], Y[:1], validation_split=0.5)
    assert t.model.built is None
    t.fit(X, Y, verbose=0)
    with pytest.raises(ShapeError, match=r"but got \(50, 3\)"):
        t.fit(X[:, :3], Y, verbose=0)
    with pytest.raises(ArgumentError, match=r"there is no metric 'speed'\. Use one of: accuracy"):
        gn.Trainer(t.model, t.loss, t.optimizer, metrics=["speed"])


GOOD = draw(0, 8, 4).astype(np.float32), np.array([0, 1] * 4)
REFUSED = {
    "clip_norm": ({"clip_norm": -1}, {}, optim.SGD(0.1)),
    "groups": ({}, {}, optim.SGD(0.1, groups={"9.*": {"weight_decay": 0.1}})),
    "a folder": ({}, {"callbacks": [JsonlLog("/nowhere/log")]}, optim.SGD(0.1)),
    "a schedule": ({}, {"callbacks": [ReduceOnPlateau("loss")]}, optim.SGD(schedules.Constant(0.1))),
    "targets": ({}, {"x": [(GOOD[0], GOOD[1] + 0.5), GOOD], "y": None}, optim.SGD(0.1)),
    "validation parts": ({}, {"validation_data": (*GOOD, np.ones(8), np.ones(8))}, optim.SGD(0.1)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_that_is_refused_leaves_the_model_unbuilt(name):
    options, arguments, optimizer = REFUSED[name]
    model = layers.Sequential(layers.Dense(2))
    t = gn.Trainer(model, losses.CrossEntropy(), optimizer, device="cpu", **options)
    with pytest.raises(GpunetError):
        t.fit(**({"x": GOOD[0], "y": GOOD[1], "verbose": 0} | arguments))
    assert model.built is None
    gn.Trainer(model, losses.CrossEntropy(), optim.SGD(0.1), device="cpu").fit(*GOOD, verbose=0)


def test_arrays_of_the_other_byte_order():
    x, y = GOOD
    two = [
        gn.Trainer(layers.Sequential(layers.Dense(2)), losses.CrossEntropy(), optim.SGD(0.1), device="cpu")
        for _ in range(2)
    ]
    two[0].fit(x, y, verbose=0)
    two[1].fit(x.astype(">f4"), y.astype(">i8"), verbose=0)
    assert two[0].history.epochs == two[1].history.epochs
    assert np.array_equal(two[0].predict(x), two[1].predict(x.astype(">f8")))


def test_batches_of_which_only_some_have_weights_are_refused():
    t = gn.Trainer(layers.Sequential(layers.Dense(2)), losses.CrossEntropy(), optim.SGD(0.1), device="cpu")
    t.fit(*GOOD, verbose=0)
    with pytest.raises(ArgumentError, match=r"some batches have a sample_weight and others have none\. Give all"):
        t.evaluate([GOOD, (*GOOD, np.ones(8))])


def test_binary_and_regression():
    model = layers.Sequential(layers.Dense(1))
    t = gn.Trainer(model, losses.BinaryCrossEntropy(), optim.Adam(0.1), metrics=["accuracy"], device="cpu")
    history = t.fit(X, Y[:, None].astype(np.float32), epochs=20, verbose=0)
    assert history["accuracy"][-1] > 0.95
    t = gn.Trainer(layers.Sequential(layers.Dense(1)), losses.MeanSquaredError(), optim.Adam(0.1), device="cpu")
    history = t.fit(X, X @ [[1.0], [2.0], [0.0], [-1.0]], epochs=60, validation_split=0.2, verbose=0)  # float64
    assert set(history.epochs[0]) == {"loss", "val_loss"}
    assert history["loss"][-1] < 1e-3


def test_sample_weights():
    """Weight 0 is as if the sample were not there; n stays."""
    wrong, weight = Y.copy(), np.ones(50)
    wrong[:20], weight[:20] = 1 - Y[:20], 0
    t = trainer(seed=1)
    t.fit(X, wrong, sample_weight=weight, epochs=20, batch_size=16, validation_data=(X, wrong, weight), verbose=0)
    assert t.evaluate(X, Y)["accuracy"] > 0.9
    known = {name: value[-1] for name in ("loss", "val_loss") for value in [t.history[name]]}
    assert known["val_loss"] == t.evaluate(X, wrong, weight)["loss"] < 0.7 * t.evaluate(X, wrong)["loss"]
    assert abs(t.evaluate(X, wrong, weight)["loss"] - t.evaluate(X[20:], Y[20:])["loss"] * 30 / 50) < 1e-6
    assert t.fit(X, wrong, sample_weight=weight, validation_split=0.5, verbose=0)


def test_bad_sample_weights_are_refused_before_training():
    t = trainer()
    for weight in (np.ones(49), np.full(50, np.nan), -np.ones(50), 1.0):
        with pytest.raises(ArgumentError, match=r"one finite number >= 0 for each of the 50 samples, but"):
            t.fit(X, Y, sample_weight=weight, verbose=0)
    with pytest.raises(ShapeError, match=r"one number a sample, but got \(50, 1\) for predictions \(50, 2\)"):
        t.fit(X, Y, sample_weight=np.ones((50, 1)), verbose=0)
    assert t.model.built is None


def test_ignored_labels_do_not_count_as_wrong():
    loss = losses.CrossEntropy(ignore_label=-1)
    z = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert metrics.accuracy(z, np.array([-1, 0, 1]), loss) == 0.5
    assert metrics.accuracy(z, np.eye(2)[[0, 0, 1]], loss) == 2 / 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([layers.Dense(2)], losses.CrossEntropy(), optim.SGD()), r"model must be one such as layers.Sequential\("),
        ((layers.Sequential(), losses.CrossEntropy, optim.SGD()), r"loss must be one such as losses.CrossEntropy\(\)"),
        ((layers.Sequential(), "mse", optim.SGD()), "loss must be one such as"),
        ((layers.Sequential(), losses.CrossEntropy(), optim.Adam), r"optimizer must be one such as optim.Adam\(1e-3\)"),
    ],
)
def test_what_is_no_model_loss_or_optimizer_is_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        gn.Trainer(*arguments)


def test_the_activation_of_the_loss_is_not_applied_twice():
    for last, loss in ((layers.Softmax(), losses.CrossEntropy()), (layers.Sigmoid(), losses.BinaryCrossEntropy())):
        model = layers.Sequential(layers.Dense(2), layers.Sequential(layers.ReLU(), last))
        message = (
            rf"takes logits, but the model ends with {type(last).__name__}: it would be applied twice\. Leave it out"
        )
        with pytest.raises(ArgumentError, match=message):
            gn.Trainer(model, loss, optim.SGD())
        model.build((3,), device="cpu")
        with pytest.raises(ArgumentError, match="takes logits"):
            gn.TrainStep(model, loss, optim.SGD())
    model = layers.Sequential(layers.Dense(2), layers.Sigmoid())
    gn.Trainer(model, losses.MeanSquaredError(), optim.SGD())


def test_probabilities():
    t = trainer()
    t.fit(X, Y, verbose=0)
    p, z = t.predict_proba(X), t.predict(X)
    np.testing.assert_allclose(p, np.exp(z) / np.exp(z).sum(-1, keepdims=True), rtol=1e-5)
    one = gn.Trainer(layers.Sequential(layers.Dense(1)), losses.BinaryCrossEntropy(), optim.SGD(), device="cpu")
    one.fit(X, Y[:, None], verbose=0)
    np.testing.assert_allclose(one.predict_proba(X), 1 / (1 + np.exp(-one.predict(X))), rtol=1e-5)
    numbers = gn.Trainer(t.model, losses.MeanSquaredError(), optim.SGD())
    with pytest.raises(
        ArgumentError, match=r"MeanSquaredError has no activation that makes probabilities of outputs\. U"
    ):
        numbers.predict_proba(X)


@pytest.mark.parametrize("options", [{"clip_value": 0.01}, {"clip_norm": 0.01}, {"accumulate": 3}])
def test_options_of_the_step(options):
    t, plain = trainer(seed=1, **options), trainer(seed=1)
    for one in (t, plain):
        one.fit(X, Y, verbose=0)
    step = gn.TrainStep(t.model, t.loss, optim.SGD(), **options)
    assert all(getattr(t._step, name) == getattr(step, name) == value for name, value in options.items())


def test_training_on_indices():
    x = np.random.default_rng(0).integers(0, 10, (200, 3))
    model = layers.Sequential(layers.Embedding(10, 8), layers.Flatten(), layers.Dense(2))
    t = gn.Trainer(model, losses.CrossEntropy(), optim.Adam(0.05), metrics=["accuracy"], device="cpu")
    for wrong, found in ((x - 1, "int64 from -1 to 8"), (x + 1, "from 1 to 10"), (x * 1.0, "float64 from 0.0 to 9.0")):
        with pytest.raises(ArgumentError, match=rf"Embedding '0' takes integers in \[0, 10\), but got .*{found}"):
            t.fit(wrong, x[:, 0] % 2, verbose=0)
    assert t.model.built is None
    t.fit(x, x[:, 0] % 2, epochs=15, verbose=0)
    assert t.evaluate(x, x[:, 0] % 2)["accuracy"] == 1
    with pytest.raises(ArgumentError, match=r"takes integers in \[0, 10\)"):
        model.predict(x + 1)


def test_fit_waits_for_the_device_between_epochs_only(monkeypatch):
    from fakegpu import open_fakegpu

    from gpunet.train.progress import Progress

    backend, seen = open_fakegpu(), []
    monkeypatch.setattr(Progress, "advance", lambda self, samples: seen.append(backend.cupy.counts.synchronisations))
    model = layers.Sequential(layers.Dense(4), layers.ReLU(), layers.Dense(2)).build((4,), device=backend)
    gn.Trainer(model, losses.CrossEntropy(), optim.SGD()).fit(X, Y, epochs=2, batch_size=10, verbose=0)
    first, second = seen[:5], seen[5:]
    assert len(set(first)) == len(set(second)) == 1
    assert second[0] > first[0]


def test_bad_validation_data_are_refused_before_training():
    t = trainer()
    for data_x, data_y in ((X[:10], Y[:7]), (X[:0], Y[:0])):
        with pytest.raises(ArgumentError, match="as many inputs as targets, at least one"):
            t.fit(X, Y, validation_data=(data_x, data_y), verbose=0)
        with pytest.raises(ArgumentError, match="as many inputs as targets, at least one"):
            t.evaluate(data_x, data_y)
    assert t.model.built is None or len(t.history) == 0


def test_accuracy_needs_classes():
    assert metrics.accuracy(np.array([[1.0, 2.0], [3.0, 0.0]]), np.array([1, 1]), losses.CrossEntropy()) == 0.5
    with pytest.raises(ArgumentError, match="accuracy needs classes, but MeanSquaredError has none"):
        metrics.accuracy(np.zeros((2, 1)), np.zeros((2, 1)), losses.MeanSquaredError())


def test_batches_hold_each_sample_once_in_an_order_of_their_own():
    first = list(data.batches(X, Y, 16, seed=0, epoch=0))
    assert [len(x) for x, _ in first] == [16, 16, 16, 2]
    assert sorted(np.concatenate([x for x, _ in first])[:, 0]) == sorted(X[:, 0])
    again, other = list(data.batches(X, Y, 16, seed=0, epoch=0)), list(data.batches(X, Y, 16, seed=0, epoch=1))
    assert np.array_equal(first[0][0], again[0][0])
    assert not np.array_equal(first[0][0], other[0][0])


def test_a_split_is_shuffled_and_complete():
    (x, y), (vx, vy) = data.split(X, Y, fraction=0.2, seed=0)
    assert (len(x), len(vx)) == (40, 10)
    assert sorted(np.concatenate([x, vx])[:, 0]) == sorted(X[:, 0])
    assert len(y) == 40
    assert len(vy) == 10
    assert not np.array_equal(vx, X[-10:])
