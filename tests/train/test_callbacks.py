"""Callbacks in fit, and in a loop written by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from kit import draw

import gpunet as gn
from gpunet import layers, losses, optim, schedules
from gpunet.errors import ArgumentError, FileError, NotFiniteError
from gpunet.train import Run
from gpunet.train.callbacks import Callback, EarlyStopping, JsonlLog, ReduceOnPlateau, StopOnNaN

X = draw(0, 48, 4).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64)


def trainer(rate=0.1, device="cpu", **options):
    model = layers.Sequential(layers.Dense(8), layers.BatchNorm(), layers.ReLU(), layers.Dense(2))
    return gn.Trainer(model, losses.CrossEntropy(), optim.SGD(rate), device=device, **options)


class Figures(Callback):
    """Gives epochs the figures that a test wants, and counts the moments."""

    def __init__(self, values):
        self.values, self.moments, self.weights = values, [], []

    def on_begin(self, run):
        self.moments.append("begin")

    def on_step(self, run):
        self.moments.append("step")

    def on_epoch(self, run, record):
        record["val_loss"] = self.values[run.epoch - 1]
        self.weights.append(run.step.model.get_weights())
        self.moments.append("epoch")

    def on_end(self, run, error):
        self.moments.append(f"end {type(error).__name__}")


def test_the_moments_in_order():
    figures = Figures([1.0, 2.0])
    trainer().fit(X, Y, epochs=2, batch_size=24, callbacks=[figures], verbose=0)
    assert figures.moments == ["begin", "step", "step", "epoch", "step", "step", "epoch", "end NoneType"]


def test_the_end_is_told_of_an_error():
    class Broken(Callback):
        def on_step(self, run):
            raise ZeroDivisionError

    figures = Figures([1.0])
    with pytest.raises(ZeroDivisionError):
        trainer().fit(X, Y, callbacks=[figures, Broken()], verbose=0)
    assert figures.moments[-1] == "end ZeroDivisionError"


def test_early_stopping_restores_the_best_weights():
    figures = Figures([3.0, 2.0, 2.5, float("nan"), 1.0])
    t = trainer()
    history = t.fit(X, Y, epochs=5, callbacks=[figures, EarlyStopping(patience=2)], verbose=0)
    assert len(history) == 4
    assert all(np.array_equal(w, figures.weights[1][n]) for n, w in t.model.get_weights().items())
    assert not np.array_equal(figures.weights[1]["0.weight"], figures.weights[3]["0.weight"])


def test_early_stopping_restores_at_the_end_too_and_heeds_min_delta():
    figures = Figures([3.0, 2.0, 1.95])
    t = trainer()
    t.fit(X, Y, epochs=3, callbacks=[figures, EarlyStopping(patience=5, min_delta=0.1)], verbose=0)
    assert all(np.array_equal(w, figures.weights[1][n]) for n, w in t.model.get_weights().items())


def test_what_is_better_when_larger():
    t = trainer(metrics=["accuracy"])
    t.fit(X, Y, epochs=9, callbacks=[EarlyStopping("val_accuracy", patience=9)], validation_data=(X, Y), verbose=0)
    assert t.evaluate(X, Y)["accuracy"] == max(t.history["val_accuracy"])


def test_a_figure_that_is_not_there_is_named():
    with pytest.raises(
        ArgumentError, match=r"there is no 'val_loss' to watch, only loss\. Give fit validation_data, or"
    ):
        trainer().fit(X, Y, callbacks=[EarlyStopping()], verbose=0)


def test_the_learning_rate_is_reduced_on_a_plateau():
    rates = []

    class Rates(Callback):
        def on_epoch(self, run, record):
            rates.append(run.step.optimizer.learning_rate)

    figures = Figures([3.0, 3.0, 3.0, 3.0, 2.0, 2.0, 2.0, 2.0])
    reduce = ReduceOnPlateau(patience=2, factor=0.5, lowest=0.02)
    trainer(0.08).fit(X, Y, epochs=8, callbacks=[figures, reduce, Rates()], verbose=0)
    assert rates == [0.08, 0.08, 0.04, 0.04, 0.04, 0.04, 0.02, 0.02]


def test_a_schedule_is_not_reduced():
    for rate in (schedules.Constant(0.1), lambda step: 0.1):
        with pytest.raises(ArgumentError, match=r"ReduceOnPlateau sets the learning rate, but that is .* Use a number"):
            trainer(rate).fit(X, Y, callbacks=[ReduceOnPlateau("loss")], verbose=0)


def test_the_log_has_a_line_an_epoch(tmp_path):
    t = trainer()
    t.fit(
        X,
        Y,
        epochs=3,
        batch_size=24,
        callbacks=[JsonlLog(tmp_path / "log"), Figures([1.0, float("nan"), 2.0])],
        verbose=0,
    )
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 2), (2, 4), (3, 6)]
    assert [line["loss"] for line in lines] == t.history["loss"]
    with pytest.raises(FileError, match=r"the log .* cannot be written: choose a file in a folder that is there"):
        t.fit(X, Y, callbacks=[JsonlLog(tmp_path / "no" / "log")], verbose=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStopping(patience=0), "EarlyStopping needs patience >= 1, but got 0"),
        (lambda: EarlyStopping(mode="up"), "mode must be 'auto', 'min' or 'max', but got 'up'"),
        (lambda: EarlyStopping(min_delta=-1.0), "min_delta must be >= 0, but got -1.0"),
        (lambda: ReduceOnPlateau(factor=1.0), r"needs factor in \(0, 1\), but got 1.0"),
        (lambda: ReduceOnPlateau(patience=0), "needs patience >= 1 and lowest >= 0, but got 0"),
    ],
)
def test_bad_options_are_refused(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_the_log_of_another_run_stays(tmp_path):
    """Also where another callback refuses the run."""
    (tmp_path / "log").write_text('{"epoch": 1}\n')
    with pytest.raises(FileError, match=r"log is the log of another run\. Choose another file, or resume that run"):
        trainer().fit(X, Y, callbacks=[JsonlLog(tmp_path / "log")], verbose=0)
    t = trainer()
    t.fit(X, Y, callbacks=[JsonlLog(tmp_path / "mine")], verbose=0)
    before = (tmp_path / "mine").read_bytes()
    t.optimizer.learning_rate = schedules.Constant(0.1)
    with pytest.raises(ArgumentError, match="ReduceOnPlateau sets the learning rate"):
        t.fit(X, Y, callbacks=[JsonlLog(tmp_path / "mine"), ReduceOnPlateau("loss")], verbose=0)
    assert (tmp_path / "mine").read_bytes() == before
    assert (tmp_path / "log").read_text() == '{"epoch": 1}\n'


def test_a_callback_that_is_used_again_for_another_model_begins_anew():
    stopping, reduce = EarlyStopping("loss", patience=1), ReduceOnPlateau("loss", patience=1)
    first = trainer(0.5)
    first.fit(X, Y, epochs=20, callbacks=[stopping, reduce], verbose=0)
    second, alone = trainer(0.01, seed=4), trainer(0.01, seed=4)
    second.fit(X, Y, epochs=5, callbacks=[stopping, reduce], verbose=0)
    alone.fit(
        X, Y, epochs=5, callbacks=[EarlyStopping("loss", patience=1), ReduceOnPlateau("loss", patience=1)], verbose=0
    )
    assert second.history.epochs == alone.history.epochs
    assert all(np.array_equal(w, alone.model.get_weights()[n]) for n, w in second.model.get_weights().items())


# ---- StopOnNaN


def stopped(model, x, y, loss=None, rate=0.1, **options):
    t = gn.Trainer(model, loss or losses.CrossEntropy(), optim.SGD(rate), device="cpu", **options)
    with pytest.raises(NotFiniteError) as caught:
        t.fit(x, y, epochs=50, batch_size=len(x), callbacks=[StopOnNaN()], verbose=0)
    assert all(np.isfinite(w).all() for w in t.model.get_weights().values())
    return str(caught.value)


def test_an_overflow_in_forward_is_named_and_the_weights_are_kept():
    model = layers.Sequential(layers.Dense(4, name="first"), layers.Dense(2, name="second")).build((4,), device="cpu")
    model.set_weights({"first.weight": np.full((4, 4), 1e30), "second.weight": np.full((4, 2), 1e30)})
    message = stopped(model, np.abs(X), Y)
    assert message.startswith(
        "step 0: the output of Dense 'second' is not finite. The weights are those before this st"
    )


def test_a_learning_rate_that_is_far_too_large_is_found():
    model = layers.Sequential(layers.Dense(4), layers.Dense(1))
    message = stopped(model, X, X[:, :1], losses.MeanSquaredError(), rate=1e6)
    assert "is not finite" in message
    assert "Try a smaller learning rate" in message


def test_bad_inputs_are_found():
    x = X.copy()
    x[5, 2] = np.nan
    assert "the input is not finite" in stopped(layers.Sequential(layers.Dense(2)), x, Y)


def test_bad_targets_are_found():
    y = X[:, :1].copy()
    y[3] = np.inf
    assert "the target is not finite" in stopped(layers.Sequential(layers.Dense(1)), X, y, losses.MeanSquaredError())


def test_running_statistics_that_overflow_are_found():
    """Their layer's output does not, at first."""

    class Overflowing(layers.BatchNorm):
        def forward(self, x, ctx):
            if ctx.training:
                self._states[0].value[...] = np.inf
            return x, None

        def backward(self, dy, saved, ctx):
            return dy

    model = layers.Sequential(layers.Dense(3), Overflowing(name="norm"), layers.Dense(2))
    assert "'norm.running_mean' is not finite, though the layers' outputs are" in stopped(model, X, Y)


def test_an_infinite_gradient_of_a_finite_loss_is_named():
    class Steep(layers.Tanh):
        def derivative(self, xp, dy, x, y):
            return dy * (x / (x - x))

    model = layers.Sequential(layers.Dense(3, name="hidden"), Steep(), layers.Dense(2))
    message = stopped(model, X, Y)
    assert "the gradient of 'hidden.bias' is not finite, though the loss is" in message


def test_an_optimizer_that_makes_infinite_weights_is_named():
    model = layers.Sequential(layers.Dense(2, use_bias=False)).build((4,), device="cpu")
    assert "SGD made weights that are not finite of finite gradients" in stopped(model, X, Y, rate=float("inf"))


def test_training_goes_on_with_other_data_after_it_was_stopped():
    bad = X.copy()
    bad[40:] = np.inf
    t = gn.Trainer(layers.Sequential(layers.Dense(2)), losses.CrossEntropy(), optim.Adam(0.1), device="cpu")
    t.fit(X, Y, callbacks=[StopOnNaN()], verbose=0)
    with pytest.raises(NotFiniteError):
        t.fit(bad, Y, batch_size=8, callbacks=[StopOnNaN()], verbose=0)
    assert all(np.isfinite(value).all() for value in t.optimizer.get_state().values())
    t.fit(X, Y, callbacks=[StopOnNaN()], verbose=0)


def test_a_healthy_run_is_let_alone():
    one, two = trainer(), trainer()
    one.fit(X, Y, epochs=3, callbacks=[StopOnNaN()], verbose=0)
    two.fit(X, Y, epochs=3, verbose=0)
    assert all(np.array_equal(w, two.model.get_weights()[n]) for n, w in one.model.get_weights().items())


# ---- by hand


def test_callbacks_work_from_a_loop_written_by_hand():
    def fitted():
        t = trainer(seed=2)
        t.fit(X, Y, epochs=6, batch_size=16, callbacks=[EarlyStopping("loss", patience=1)], verbose=0)
        return t.model

    model = trainer().model.build((4,), device="cpu", seed=2)
    step = gn.TrainStep(model, losses.CrossEntropy(), optim.SGD(0.1), seed=2)
    run = Run(step, callbacks=[EarlyStopping("loss", patience=1)])
    with run:
        while run.epoch < 6 and not run.stopped:
            for batch in gn.data.batches(X, Y, 16, seed=2, epoch=run.epoch):
                run.after_step(step(*batch), batch)
            run.after_epoch({"loss": run.loss()})
    assert len(run.history) == 6
    assert all(np.array_equal(w, model.get_weights()[n]) for n, w in fitted().get_weights().items())
