"""Malformed input: one line with the remedy, status 2, nothing written or changed."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest
from kit import beside

from gpunet.errors import GpunetError

runs = beside(__file__, "test_runs.py")
call, table = runs.call, runs.table


def text(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


MALFORMED = {
    "no such file": (["train", "none.npz"], r"there is no data set or file 'none.npz'. Use one of digits"),
    "text": (["train", "text.npz"], "text.npz cannot be read: .* an .npz file with arrays x and y"),
    "a truncated file": (["train", "cut.npz"], "cut.npz cannot be read"),
    "objects": (["train", "objects.npz"], "objects.npz cannot be read"),
    "words": (["train", "words.npz"], "words.npz: x has no numbers, but <U1. Turn words into whole numbers"),
    "no targets": (["train", "nothing.npz"], "nothing.npz has no array 'y', but x. Use one of"),
    "lengths": (["train", "lengths.npz"], r"x needs shape \(n, …\) and y n targets.* but got \(60, 3\) and \(59,\)"),
    "one axis": (["train", "flat.npz"], r"x needs shape \(n, …\)"),
    "one sample": (["train", "one.npz"], "n at least 2"),
    "not finite": (["train", "nan.npz"], "x has numbers that are not finite. Leave those samples out"),
    "negative labels": (["train", "negative.npz"], "labels are whole numbers from 0, but y goes from -1"),
    "labels past binary": (["train", "data.npz", "--task", "binary"], "binary targets are 0 and 1, but y goes up to 2"),
    "broken labels": (
        ["train", "real.npz", "--task", "classes"],
        "labels are whole numbers from 0, but y goes from 0.5",
    ),
    "a table": (["train", "table.csv"], r"table.csv is no .npz file. Make one of your arrays: numpy.savez"),
    "half a test": (["train", "halftest.npz"], "has one of x_test and y_test. Give both, or none"),
    "another test": (["train", "othertest.npz"], r"the model is for inputs \(3,\), but the test data have \(4,\)"),
    "labels of the test": (["train", "testlabels.npz"], "the test data have labels from 0 to 7, training has fewer"),
    "one class": (
        ["train", "oneclass.npz"],
        "y has 1 distinct labels, and the largest is 0. Number the classes from 0",
    ),
    "a large label": (
        ["train", "large.npz"],
        "y has 2 distinct labels, and the largest is 1000000. Number the classes",
    ),
    "one-hot rows": (["train", "onehot.npz", "--task", "classes"], r"labels need shape \(n,\), but y has .*by argmax"),
    "options of a resume": (
        ["train", "--resume", "run", "--seed", "3"],
        "goes on with the options of its run. Leave out",
    ),
    "divergence": (
        ["train", "real.npz", "--optimizer", "sgd", "--learning-rate", "1e30", "--device", "cpu"],
        "the loss is (nan|inf) after epoch 1. Try a smaller --learning-rate",
    ),
    "a sample that is not finite": (["predict", "run", "nan.npz"], "x has numbers that are not finite. Leave those"),
    "a file as run": (["evaluate", "data.npz"], "data.npz is no run: it is no folder"),
    "lost checkpoints": (
        ["train", "--resume", "lost"],
        "the checkpoints of lost are gone. Restore them, or train anew",
    ),
    "a task": (["train", "--task", "images"], "there is no task 'images'. Use one of: auto, classes, binary, numbers"),
    "hidden": (["train", "--hidden", "a,b"], "--hidden takes whole numbers such as 128,64, but got 'a,b'"),
    "hidden units": (["train", "--hidden", "-3"], "Dense needs a whole number of units, at least 1, but got -3"),
    "activation": (["train", "--activation", "step"], "there is no activation 'step'. Use one of: relu"),
    "optimizer": (["train", "--optimizer", "newton"], "there is no optimizer 'newton'. Use one of: adam"),
    "learning rate": (["train", "--learning-rate", "-1"], "Adam needs learning_rate >= 0"),
    "no number": (
        ["train", "--learning-rate", "fast"],
        "Invalid value for '--learning-rate': .* See: gpunet --help",
    ),
    "dropout": (["train", "--dropout", "1.0"], r"rate in \[0, 1\), but got 1.0"),
    "epochs": (["train", "--epochs", "0"], "Invalid value for '--epochs': .* See: gpunet --help"),
    "batch size": (["train", "--batch-size", "-1"], "Invalid value for '--batch-size'"),
    "seed": (["train", "--seed", "-1"], "Invalid value for '--seed'"),
    "a device": (["train", "--device", "cuda:99"], "device 'cuda:99' is not usable"),
    "an option": (["train", "--speed", "9"], "No such option: --speed"),
    "a command": (["fly"], "No such command 'fly'. See: gpunet --help"),
    "a full folder": (["train", "--out", "full"], "full is not empty. Choose another folder, or go on with its run"),
    "a file as folder": (["train", "--out", "data.npz"], "data.npz is not empty"),
    "a folder below a file": (["train", "--out", "data.npz/run"], "cannot be made"),
    "both": (
        ["train", "--resume", "full", "--out", "new"],
        "--resume goes on with the options of its run. Leave out out",
    ),
    "no run": (["train", "--resume", "nowhere"], "nowhere is no run: it is no folder. Make one"),
    "a bad config": (["train", "--resume", "badrun"], "config.json cannot be read: .* Train anew"),
    "evaluate nothing": (["evaluate", "nowhere"], "nowhere is no run"),
    "evaluate half": (["evaluate", "half"], "the run half has no model yet. Go on with it"),
    "predict nothing": (["predict", "run", "none.npy"], "there is no data set or file 'none.npy'"),
    "another width": (["predict", "run", "wide.npy"], r"the model was trained on inputs \(3,\), but got \(5,\)"),
    "a vector": (["predict", "run", "vector.npy"], r"x needs shape \(n, ...\).* Use x\[None\] for one sample"),
    "a name without npz": (["predict", "run", "data.npz", "--out", "p.txt"], "--out needs the name of a new .npz file"),
    "an altered model": (["evaluate", "altered"], "its checksum is wrong. Restore it from a copy|not whole"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Files of all kinds."""
    here = tmp_path_factory.mktemp("malformed")
    before = os.getcwd()
    os.chdir(here)
    try:
        x = table("data.npz")
        table("data.npz", y=np.arange(60) % 3)
        text(here / "text.npz", "x,y")
        text(here / "cut.npz", (here / "data.npz").read_bytes()[:300])
        np.savez("objects.npz", x=np.array([{}, []], dtype=object), y=[0, 1])
        np.savez("words.npz", x=np.array([["a"], ["b"]]), y=[0, 1])
        np.savez("nothing.npz", x=x)
        table("lengths.npz", y=np.zeros(59, int))
        np.savez("flat.npz", x=np.zeros(5), y=np.zeros(5, int))
        np.savez("one.npz", x=np.zeros((1, 3)), y=np.zeros(1, int))
        table("nan.npz", x=np.where(x > 110, np.nan, x) + np.where(x == x.max(), np.nan, 0))
        table("negative.npz", y=np.arange(60) % 3 - 1)
        table("real.npz", y=np.arange(60) + 0.5)
        np.save("wide.npy", np.zeros((2, 5)))
        text(here / "table.csv", "1,2")
        table("halftest.npz", x_test=x)
        table("othertest.npz", x_test=np.zeros((5, 4)), y_test=np.arange(5) % 2)
        table("testlabels.npz", x_test=x[:8], y_test=np.arange(8))
        table("oneclass.npz", y=np.zeros(60, int))
        table("large.npz", y=np.arange(60) % 2 * 10**6)
        table("onehot.npz", y=np.eye(3)[np.arange(60) % 3])
        np.save("vector.npy", np.zeros(3))
        for name in ("full", "badrun", "half"):
            (here / name).mkdir()
        text(here / "full" / "notes.txt", "mine")
        text(here / "badrun" / "config.json", '{"data": "digits"}')
        assert call("train", "data.npz", "--hidden", "4", "--epochs", 1, "--out", "run", "--device", "cpu") == 0
        text(here / "half" / "config.json", (here / "run" / "config.json").read_text())
        shutil.copytree(here / "run", here / "lost")
        shutil.rmtree(here / "lost" / "checkpoints")
        (here / "altered").mkdir()
        text(here / "altered" / "config.json", (here / "run" / "config.json").read_text())
        model = bytearray((here / "run" / "model.safetensors").read_bytes())
        model[-3] ^= 1
        text(here / "altered" / "model.safetensors", bytes(model))
    finally:
        os.chdir(before)
    return here


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_input_is_one_line_with_the_remedy_and_changes_nothing(name, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    arguments, message = MALFORMED[name]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert call(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    *progress, line = err.splitlines()
    assert not progress or name == "divergence"
    assert line.startswith("gpunet: ")
    assert re.search(message, line), err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_errors_of_the_library_have_a_common_base():
    from gpunet import errors

    for error in vars(errors).values():
        if isinstance(error, type) and error.__module__ == "gpunet.errors":
            assert issubclass(error, GpunetError)
