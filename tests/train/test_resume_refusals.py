"""Checkpoints that are not gone on with, and what stays as it was."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from kit import beside

import gpunet as gn
from gpunet import layers, losses, optim, schedules
from gpunet.errors import ArgumentError, FileError, NotBuiltError, ShapeError
from gpunet.io import files
from gpunet.train.callbacks import Checkpoint

resume = beside(__file__, "test_resume.py")
X, Y, OPTIMIZERS, Stop, StopAt, trainer, fit = (
    getattr(resume, name) for name in ("X", "Y", "OPTIMIZERS", "Stop", "StopAt", "trainer", "fit")
)


@pytest.fixture
def folder(tmp_path):
    with pytest.raises(Stop):
        fit(trainer(), callbacks=[Checkpoint(tmp_path, every_steps=1), StopAt(7)])
    return tmp_path


def other_model():
    return gn.Trainer(
        layers.Sequential(layers.Dense(2)), losses.CrossEntropy(), OPTIMIZERS["adam"](), seed=3, device="cpu"
    )


REFUSED = {
    "model": (other_model, {}, r"another model: model: config: layers: "),
    "optimizer": (lambda: trainer("sgd"), {}, r"another optimizer: 'Adam' there, 'SGD' here"),
    "groups": (
        lambda: trainer(optim.Adam(0.1, groups={"0.*": {"eps": 1e-3}})),
        {},
        r"another optimizer: \[\] there, \['0\.\*'\] here",
    ),
    "seed": (lambda: trainer(seed=4), {}, "another seed: 3 there, 4 here"),
    "precision": (lambda: trainer(dtype="float64"), {}, "another model: dtype: 'float32' there, 'float64' here"),
    "settings": (
        lambda: trainer(optim.Adam(schedules.Cosine(0.05, steps=60), beta1=0.5)),
        {},
        "another plan: settings: beta1: '0.9' there, '0.5' here",
    ),
    "learning rate": (lambda: trainer(optim.Adam(0.05)), {}, "another plan: settings: learning_rate: .Cosine"),
    "other numbers": (trainer, {"data": (X + 1, Y)}, "another plan: data: checksum: "),
    "data": (trainer, {"data": (X[:64], Y[:64])}, "another plan: data: samples: 70 there, 64 here"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_checkpoint_of_another_run_is_refused_and_nothing_changes(what, folder):
    make, options, message = REFUSED[what]
    one = make()
    with pytest.raises(FileError, match=rf"{message}.* Use the same one, or start anew without resume"):
        fit(one, resume=folder, **options)
    assert one.model.built is None
    assert len(one.history) == 0
    fit(one, epochs=1)  # and it can start anew


def test_a_built_model_keeps_its_weights_after_a_refusal(folder):
    one = trainer("sgd")
    one.model.build((4,), device="cpu", seed=9)
    before = one.model.get_weights()
    with pytest.raises(FileError, match="another optimizer"):
        fit(one, resume=folder)
    assert all(np.array_equal(w, before[name]) for name, w in one.model.get_weights().items())


@pytest.mark.parametrize("lost", ["updates", "stopped", "callbacks", "optimizer/t", "weights/0.bias"])
def test_what_is_missing_is_found_before_anything_changes(lost, folder):
    path = max(folder.glob("step-*"))
    content, arrays = files.read(path, "checkpoint", 1)
    (content if lost in content else arrays).pop(lost)
    files.write(path, "checkpoint", 1, content, arrays)
    one = trainer()
    one.model.build((4,), device="cpu", seed=9)
    before = one.model.get_weights()
    with pytest.raises(FileError, match="does not fit this run"):
        fit(one, resume=path)
    assert all(np.array_equal(w, before[name]) for name, w in one.model.get_weights().items())
    assert len(one.history) == 0


def test_what_is_no_checkpoint_is_refused(folder, tmp_path):
    one = trainer()
    with pytest.raises(FileError, match=r"nowhere cannot be read: it does not exist\. Check the path"):
        fit(one, resume=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FileError, match=r"there is no checkpoint in .*empty\. Give the folder of a Checkpoint callback"
    ):
        fit(one, resume=tmp_path / "empty")
    model = layers.Sequential(layers.Dense(2)).build((4,), device="cpu")
    gn.save(model, tmp_path / "model")
    with pytest.raises(FileError, match=r"no gpunet checkpoint: it is a gpunet model\. Read it with gpunet\.load"):
        fit(one, resume=tmp_path / "model")
    path = max(folder.glob("step-*"))
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    with pytest.raises(FileError, match="not whole"):
        fit(one, resume=folder)
    path.write_bytes(whole[:-7] + b"\0" * 6 + b"\1")
    with pytest.raises(FileError, match="its checksum is wrong"):
        fit(one, resume=folder)
    content, arrays = (
        json.loads(json.dumps(part)) if isinstance(part, dict) and not i else part
        for i, part in enumerate(read_whole(path, whole))
    )
    del content["updates"]
    files.write(path, "checkpoint", 1, content, arrays)
    with pytest.raises(FileError, match=r"does not fit this run: 'updates'"):
        fit(one, resume=folder)
    assert one.model.built is None


def read_whole(path, whole):
    path.write_bytes(whole)
    return files.read(path, "checkpoint", 1)


def test_the_model_of_a_checkpoint_can_be_loaded(folder):
    path = max(folder.glob("step-*"))
    _, arrays = files.read(path, "checkpoint", 1)
    loaded = gn.load(path, device="cpu")
    assert all(np.array_equal(w, arrays[f"weights/{n}"]) for n, w in loaded.get_weights().items())
    assert loaded.predict(X).shape == (70, 2)


def test_a_new_run_does_not_mix_with_an_old_one(folder):
    with pytest.raises(
        FileError, match=r"there are checkpoints of another run in .* by resume=.*, or choose an empty fol"
    ):
        fit(trainer(), callbacks=[Checkpoint(folder)])


def test_leftovers_of_a_killed_process_are_removed(folder):
    leftover, alive = (folder / f".step-00000009.checkpoint.{pid}.tmp" for pid in (2**22 + 1, os.getpid()))
    leftover.write_bytes(b"half")
    alive.write_bytes(b"half")
    fit(trainer(), callbacks=[Checkpoint(folder)], resume=folder)
    assert not leftover.exists()
    assert alive.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_steps": 0}, "a whole every_steps, at least 1, but got 0"),
        ({"every_epochs": 1.5}, "a whole every_epochs, at least 1, but got 1.5"),
        ({"keep_last": 0}, "a whole keep_last, at least 1, but got 0"),
        ({"every_epochs": None}, r"every_steps or every_epochs, but got None for both\. Try every_epochs=1"),
    ],
)
def test_bad_options(options, message, tmp_path):
    with pytest.raises(ArgumentError, match=message):
        Checkpoint(tmp_path, **options)


def test_the_state_of_an_optimizer_is_checked_before_it_is_set(cpu):
    one, model = optim.Adam(), layers.Sequential(layers.Dense(2)).build((3,), device=cpu)
    with pytest.raises(NotBuiltError, match=r"this Adam has no state yet\. Call optimizer\.prepare\(model\) first"):
        one.get_state()
    one.update(model)
    state = one.get_state()
    with pytest.raises(ArgumentError, match=r"the state of Adam has no 'v/0.bias'"):
        one.set_state({name: value + 1 for name, value in state.items() if name != "v/0.bias"})

    with pytest.raises(ShapeError, match=r"'m/0.bias' has shape \(2,\), but got \(3,\)"):
        one.set_state(state | {"m/0.bias": np.ones(3)})
    assert all(np.array_equal(value, state[name]) for name, value in one.get_state().items())
