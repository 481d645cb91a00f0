"""Runs in folders: training, going on, evaluating, predicting, and what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from kit import beside

gpunet = beside(__file__, "test_cli.py").gpunet


def call(*arguments):
    """The command in this process, which is faster: (status, error)."""
    from gpunet.cli import main

    before = sys.argv
    sys.argv = ["gpunet", *map(str, arguments)]
    try:
        main()
    except SystemExit as end:
        return end.code
    finally:
        sys.argv = before
    raise AssertionError("main ends the process")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(path, n=60, **arrays):
    rng = np.random.default_rng(0)
    x = 100 + 7 * rng.standard_normal((n, 3))
    np.savez(path, **({"x": x, "y": (x[:, 0] > 100).astype(int)} | arrays))
    return x


@pytest.mark.parametrize(
    ("data", "figures"),
    [
        ("digits", {"test_loss", "test_accuracy"}),
        ("breast_cancer", {"test_loss", "test_accuracy"}),
        ("diabetes", {"test_loss", "test_mae", "test_r2"}),
    ],
)
def test_a_run_on_each_data_set(data, figures, here, capsys):
    assert call("train", data, "--hidden", "16", "--epochs", 3, "--out", "run", "--device", "cpu", "--json") == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures <= result.keys()
    assert {path.name for path in (here / "run").iterdir()} == {
        "model.safetensors",
        "config.json",
        "history.jsonl",
        "checkpoints",
    }
    assert len((here / "run" / "history.jsonl").read_text().splitlines()) == 3
    assert call("evaluate", "run", "--json", "--device", "cpu") == 0
    again = json.loads(capsys.readouterr().out)
    assert {name: again[name] for name in figures} == {name: result[name] for name in figures}


def test_predictions_are_labels_and_probabilities(here, capsys):
    x = table("data.npz", n=200)
    assert call("train", "data.npz", "--hidden", "8", "--epochs", 60, "--out", "run", "--learning-rate", 0.01) == 0
    np.save("new.npy", x[:5])
    capsys.readouterr()
    assert call("predict", "run", "new.npy") == 0
    assert [int(line) for line in capsys.readouterr().out.split()] == (x[:5, 0] > 100).astype(int).tolist()
    assert call("predict", "run", "data.npz", "--out", "p.npz") == 0
    with np.load("p.npz") as found:
        assert found["prediction"].shape == found["probability"].shape == (200,)
        assert np.array_equal(found["probability"] > 0.5, found["prediction"] == 1)
        assert np.mean(found["prediction"] == (x[:, 0] > 100)) > 0.9
    assert call("predict", "run", "data.npz", "--out", "p.npz") == 2


def test_numbers_are_predicted_in_their_own_units(here, capsys):
    x = table("data.npz", n=200)
    table("data.npz", n=200, y=1000 + 3 * x[:, :2])
    assert call("train", "data.npz", "--hidden", "0", "--epochs", 100, "--out", "run", "--learning-rate", 0.02) == 0
    assert call("predict", "run", "data.npz", "--out", "p.npz") == 0
    with np.load("p.npz") as found:
        assert np.abs(found["prediction"] - 1000 - 3 * x[:, :2]).max() < 3


def test_more_epochs_for_a_run_that_was_done(here, capsys):
    assert call("train", "breast_cancer", "--hidden", "4", "--epochs", 2, "--out", "run", "--device", "cpu") == 0
    assert call("train", "--resume", "run", "--epochs", 4, "--device", "cpu") == 0
    assert call("train", "breast_cancer", "--hidden", "4", "--epochs", 4, "--out", "whole", "--device", "cpu") == 0
    assert same_model(here, "run")


def test_test_data_of_ones_own_and_classes_and_images(here, capsys):
    rng = np.random.default_rng(0)
    y = np.arange(90) % 3
    images = rng.standard_normal((90, 4, 4)) + 3 * y[:, None, None]
    np.savez("data.npz", x=images[:60], y=y[:60], x_test=images[60:], y_test=y[60:])
    assert call("train", "data.npz", "--hidden", "8", "--epochs", 30, "--out", "run", "--learning-rate", 0.02) == 0
    assert "test accuracy 1.0000 on 30 samples" in capsys.readouterr().out
    assert call("evaluate", "run", "data.npz") == 0
    assert "on 30 samples" in capsys.readouterr().out


def test_a_run_that_was_interrupted_goes_on(here):
    options = ("train", "--hidden", "32", "--epochs", "8", "--device", "cpu")
    assert gpunet(*options, "--out", "whole").returncode == 0
    command = [sys.executable, "-c", "from gpunet.cli import main; main()", *options, "--out", "broken"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in running.stderr:
        if line.startswith("epoch 2/"):
            break
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted. Go on with: gpunet train --resume broken" in out
    done = gpunet("evaluate", "broken")
    assert done.returncode == 0
    assert "the run broken is not finished: this is its newest checkpoint, step-" in done.stderr
    assert gpunet("train", "--resume", "broken", "--device", "cpu").returncode == 0
    for name in ("model.safetensors", "history.jsonl"):
        first, second = ((here / folder / name).read_bytes() for folder in ("whole", "broken"))
        assert same_model(here) if name.startswith("model") else first == second


def same_model(here, other="broken"):
    from gpunet.io import files

    (content, arrays), (again, same) = (
        files.read(here / folder / "model.safetensors", "model", 1) for folder in ("whole", other)
    )
    return content == again and all(np.array_equal(a, same[n]) for n, a in arrays.items())


KILLS = int(os.environ.get("GPUNET_KILLS", "4"))
TRAIN = """
import sys
import numpy as np
import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.train.callbacks import Checkpoint, EarlyStopping
from pathlib import Path

folder, out = sys.argv[1:3]
x, y = np.random.default_rng(0).standard_normal((80, 6)).astype("f4"), np.arange(80) % 2
model = layers.Sequential(layers.Dense(8), layers.BatchNorm(), layers.ReLU(), layers.Dropout(0.2), layers.Dense(2))
trainer = gn.Trainer(model, losses.CrossEntropy(), optim.Adam(0.01), device="cpu")
begun = any(Path(folder).glob("step-*"))
callbacks = [EarlyStopping("loss", patience=99), Checkpoint(folder, every_steps=1, keep_best="loss")]
trainer.fit(x, y, epochs=30, batch_size=16, callbacks=callbacks, resume=folder if begun else None, verbose=0)
gn.save(model, out)
np.savez(out + ".npz", history=trainer.history["loss"], **trainer.optimizer.get_state())
"""


def test_a_killed_run_goes_on_with_the_same_bits(here):
    """kill -9 at any moment; GPUNET_KILLS=50 for more of them."""
    from gpunet.io import files

    def start(folder):
        return subprocess.Popen([sys.executable, "-c", TRAIN, folder, f"{folder}-out"])

    assert start("whole").wait(timeout=120) == 0

    def written():
        return {path.name for path in (here / "broken").glob("step-*")}

    rng, killed = np.random.default_rng(1), 0
    while killed < KILLS:
        before = written()
        running = start("broken")
        while running.poll() is None and written() == before:  # it has to begin
            time.sleep(0.001)
        time.sleep(rng.random() * 0.3)
        if running.poll() is None:
            killed += 1
            running.kill()
        if running.wait() == 0:  # it came to its end: once more from the beginning
            for path in [*(here / "broken").iterdir()]:
                path.unlink()
    assert start("broken").wait(timeout=120) == 0
    (content, arrays), (again, same) = (files.read(f"{folder}-out", "model", 1) for folder in ("whole", "broken"))
    assert content == again
    assert all(np.array_equal(a, same[n]) for n, a in arrays.items())
    with np.load("whole-out.npz") as whole, np.load("broken-out.npz") as broken:
        assert all(np.array_equal(whole[name], broken[name]) for name in whole.files)
    assert not [path for path in (here / "broken").iterdir() if path.suffix == ".tmp"]
