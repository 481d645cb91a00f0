"""Checkpoints: a run that was stopped anywhere goes on with the bits of one that was not."""

from __future__ import annotations

import numpy as np
import pytest
from training_runs import OPTIMIZERS, Stop, StopAt, X, Y, everything, fit, trainer

from gpunet import optim
from gpunet.errors import NotBuiltError
from gpunet.io import files
from gpunet.train.callbacks import Callback, Checkpoint, EarlyStopping, JsonlLog, ReduceOnPlateau


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("steps", [1, 5, 7, 13, 20])
def test_resumed_equals_uninterrupted(optimizer, steps, tmp_path):
    """Five batches an epoch: in the middle of one, at its end, in the first and the last one."""
    whole, broken, resumed = trainer(optimizer), trainer(optimizer), trainer(optimizer)
    fit(whole, validation_split=0.2)
    with pytest.raises(Stop):
        fit(broken, validation_split=0.2, callbacks=[Checkpoint(tmp_path, every_steps=1), StopAt(min(steps, 16))])
    fit(resumed, validation_split=0.2, resume=tmp_path)
    assert everything(resumed) == everything(whole)


def test_a_run_that_was_stopped_twice(tmp_path):
    whole, one, two, three = (trainer() for _ in range(4))
    fit(whole)
    for part, steps in ((one, 3), (two, 11)):
        with pytest.raises(Stop):
            fit(
                part,
                callbacks=[Checkpoint(tmp_path, every_steps=2), StopAt(steps)],
                resume=tmp_path if part is two else None,
            )
    fit(three, resume=tmp_path)
    assert everything(three) == everything(whole)


def test_callbacks_go_on_too(tmp_path):
    def callbacks(stop=None, folder=None):
        chosen = [
            EarlyStopping(patience=4, min_delta=0.01),
            ReduceOnPlateau(patience=1, factor=0.5),
            JsonlLog(tmp_path / f"{folder}.jsonl"),
        ]
        chosen += [Checkpoint(tmp_path / folder, every_steps=1, keep_best="val_loss")]
        return chosen + ([StopAt(stop)] if stop else [])

    for number, steps in enumerate((4, 6, 15, 24)):
        whole, broken, resumed = (trainer("sgd", seed=5) for _ in range(3))
        of_whole, of_resumed = callbacks(folder=f"w{number}"), callbacks(folder=f"b{number}")
        fit(whole, epochs=8, validation_split=0.25, callbacks=of_whole)
        folder = f"b{number}"
        with pytest.raises(Stop):
            fit(broken, epochs=8, validation_split=0.25, callbacks=callbacks(steps, folder))
        fit(resumed, epochs=8, validation_split=0.25, callbacks=of_resumed, resume=tmp_path / folder)
        assert everything(resumed) == everything(whole)
        for one, other in zip(of_whole, of_resumed, strict=True):
            assert one.state()[0] == other.state()[0]
            assert all(np.array_equal(a, other.state()[1][name]) for name, a in one.state()[1].items())
        assert resumed.optimizer.learning_rate < 0.1
        logs = [(tmp_path / f"{name}{number}.jsonl").read_text() for name in "wb"]
        assert logs[0] == logs[1]
        assert len(logs[0].splitlines()) == len(whole.history)
        best = [files.read(tmp_path / f"{n}{number}" / "best.checkpoint", "checkpoint", 1) for n in "wb"]
        assert best[0][0]["history"] == best[1][0]["history"]


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16", "mixed_float16"])
def test_other_precisions(dtype, tmp_path):
    whole, broken, resumed = (trainer(dtype=dtype) for _ in range(3))
    fit(whole)
    with pytest.raises(Stop):
        fit(broken, callbacks=[Checkpoint(tmp_path, every_steps=1), StopAt(7)])
    fit(resumed, resume=tmp_path)
    assert everything(resumed) == everything(whole)
    if dtype == "mixed_float16":
        assert float(resumed._step.loss_scale.good) == float(whole._step.loss_scale.good) == 20


def test_batches_from_an_iterable_are_skipped_forward(tmp_path):
    def batches():
        order = np.random.default_rng(4).permutation(70)
        for start in range(0, 70, 16):
            yield X[order[start : start + 16]], Y[order[start : start + 16]]

    whole, broken, resumed = (trainer() for _ in range(3))
    fit(whole, (batches,))
    with pytest.raises(Stop):
        fit(broken, (batches,), callbacks=[Checkpoint(tmp_path, every_steps=1), StopAt(8)])
    fit(resumed, (batches,), resume=tmp_path)
    assert everything(resumed) == everything(whole)


def test_a_finished_run_has_nothing_to_do_and_a_second_fit_goes_further(tmp_path):
    whole, one, two = (trainer() for _ in range(3))
    fit(whole, epochs=3)
    fit(whole, epochs=2)
    fit(one, epochs=3, callbacks=[Checkpoint(tmp_path)])
    fit(two, epochs=3, resume=tmp_path)
    assert two._step.steps == 15
    fit(two, epochs=2)
    assert everything(two) == everything(whole)


def test_the_trainer_saves_by_itself(tmp_path):
    whole, one, two = (trainer() for _ in range(3))
    with pytest.raises(NotBuiltError, match="there is nothing to save yet"):
        one.save_checkpoint(tmp_path / "c")
    fit(whole, epochs=4)
    fit(one, epochs=2)
    one.save_checkpoint(tmp_path / "c")
    fit(two, epochs=4, resume=tmp_path / "c")
    assert everything(two) == everything(whole)


def test_the_newest_and_the_best_stay(tmp_path):
    one = trainer("sgd")
    fit(one, epochs=6, validation_split=0.25, callbacks=[Checkpoint(tmp_path, keep_last=2, keep_best="val_loss")])
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["best.checkpoint", "step-00000020.checkpoint", "step-00000024.checkpoint"]
    best = files.read(tmp_path / "best.checkpoint", "checkpoint", 1)[0]["history"]
    assert best[-1]["val_loss"] == min(one.history["val_loss"])


def test_frozen_parameters_are_a_part_of_what_comes_back(tmp_path):
    """A callback thaws the first layer after an epoch."""

    class Thaw(Callback):
        def on_epoch(self, run, record):
            run.step.model.freeze("0.*", frozen=False)

    def begun():
        one = trainer()
        one.model.build((4,), device="cpu", seed=3).freeze("0.*")
        return one

    whole, broken, resumed = begun(), begun(), begun()
    fit(whole, callbacks=[Thaw()])
    with pytest.raises(Stop):
        fit(broken, callbacks=[Thaw(), Checkpoint(tmp_path, every_steps=1), StopAt(12)])
    fit(resumed, callbacks=[Thaw()], resume=tmp_path)
    assert everything(resumed) == everything(whole)
    assert all(p.trainable for p in resumed.model.store.parameters)


def test_an_epoch_that_a_callback_stopped_is_recorded_after_a_kill(tmp_path):
    class StopInEpoch(Callback):
        def on_step(self, run):
            run.stopped = run.step.steps == 7

        def on_epoch(self, run, record):
            if killed and run.step.steps == 7:
                raise Stop

    one, two = trainer(), trainer()
    killed = True
    with pytest.raises(Stop):
        fit(one, callbacks=[StopInEpoch(), Checkpoint(tmp_path, every_steps=1)])
    killed = False
    fit(two, callbacks=[StopInEpoch(), Checkpoint(tmp_path, every_steps=1)], resume=tmp_path)
    assert two._step.steps == 7
    assert two.history["loss"] == one.history["loss"]
    assert len(two.history) == 2


def test_a_second_fit_goes_on_after_its_learning_rate_was_reduced(tmp_path):
    """The checkpoint keeps the rate; the trainer is made with the one of the beginning."""
    whole, one, two = (trainer("sgd") for _ in range(3))
    reduce = [ReduceOnPlateau("loss", patience=1, min_delta=10.0, factor=0.5) for _ in range(4)]
    fit(whole, callbacks=[reduce[0]])
    fit(whole, callbacks=[reduce[0]])
    fit(one, callbacks=[reduce[1]])
    with pytest.raises(Stop):
        fit(one, callbacks=[reduce[1], Checkpoint(tmp_path, every_steps=1), StopAt(27)])
    fit(two, callbacks=[reduce[2]], resume=tmp_path)
    assert everything(two) == everything(whole)
    assert two.optimizer.learning_rate < 0.1


def test_going_on_from_an_older_one_leaves_the_newer_ones_behind(tmp_path):
    one, two, three, whole = (trainer() for _ in range(4))
    with pytest.raises(Stop):
        fit(one, callbacks=[Checkpoint(tmp_path, every_steps=1, keep_last=9), StopAt(9)])
    older = tmp_path / "step-00000005.checkpoint"
    with pytest.raises(Stop):
        fit(two, callbacks=[Checkpoint(tmp_path, every_steps=1, keep_last=2), StopAt(7)], resume=older)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names[:4] == [f"abandoned-0000000{n}.checkpoint" for n in (6, 7, 8, 9)]
    assert names[4:] == ["step-00000006.checkpoint", "step-00000007.checkpoint"]
    fit(three, resume=tmp_path)
    fit(whole)
    assert everything(three) == everything(whole)


def test_numbers_of_numpy_are_kept(tmp_path):
    one = trainer(optim.SGD(np.float32(0.125)), seed=np.int64(3))
    fit(one, epochs=1, callbacks=[Checkpoint(tmp_path)])
    two = trainer(optim.SGD(np.float32(0.125)), seed=np.int64(3))
    fit(two, epochs=2, resume=tmp_path)
    assert len(two.history) == 2


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    from gpunet.train.checkpoint import newest

    for steps in (99_999_999, 100_000_003, 7):
        (tmp_path / f"step-{steps:08}.checkpoint").touch()
    assert newest(tmp_path).name == "step-100000003.checkpoint"
