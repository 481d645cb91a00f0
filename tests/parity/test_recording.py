"""Recordings: what comes back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from kit import draw

from gpunet import layers, losses, optim, parity, schedules
from gpunet.errors import ArgumentError, FileError
from gpunet.io import files
from gpunet.parity.recording import described
from gpunet.parity.settings import constructed, settings
from gpunet.pointwise import Pointwise


class Cube(Pointwise):
    """A layer of a user."""

    def formula(self, xp, x):
        return x * x * x

    def derivative(self, xp, dy, x, y):
        return 3 * dy * x * x


class Doubled(losses.MeanSquaredError):
    """A loss of a user."""


class Slow(optim.SGD):
    """An optimizer of a user."""


BATCHES = [(draw(i, 12, 4), draw(i + 9, 12, 2)) for i in range(3)]


def recorded(path, *layer, loss=None, optimizer=None, **options):
    model = layers.Sequential(layers.Dense(5), *(layer or [layers.Tanh()]), layers.Dense(2))
    parity.record(model, loss or losses.Huber(0.5), optimizer or optim.Adam(0.01), BATCHES, path, **options)


@pytest.fixture
def path(tmp_path):
    recorded(tmp_path / "r", device="cpu")
    return tmp_path / "r"


def test_a_recording_replays(path, backend):
    report = parity.replay(path, backend)
    assert report.ok, str(report)
    assert report.devices == ("cpu, recorded", backend.name)
    assert report.environment[0]["gpunet"]


def test_what_a_recording_holds(path):
    content, arrays = files.read(path, "recording", 1)
    assert content["loss"] == {"loss": "Huber", "config": {"delta": 0.5}}
    assert {"batches/2/0", "batches/2/1", "initial/0.weight", "results/layers/1/output"} <= arrays.keys()
    assert {"results/layers/2/input gradient", "results/first/gradient/2.bias"} <= arrays.keys()
    assert {"results/last/slot/m/0.weight", "results/last/slot/t", "results/end/weight/2.bias"} <= arrays.keys()
    assert arrays["results/losses"].shape == (3,)
    about = described(path)
    assert about["layers"] == ["Dense", "Tanh", "Dense"]
    assert (about["inputs"], about["dtype"], about["steps"]) == ([4], "float32", 3)
    assert about["losses"] == [arrays["results/losses"][0], arrays["results/losses"][-1]]
    assert {"device", "driver", "versions", "system", "commit", "date", "python"} <= about.keys()


def test_layers_of_a_user_are_named(tmp_path):
    recorded(tmp_path / "r", Cube(name="mine"))
    with pytest.raises(
        FileError, match=r"layers that are not gpunet's: Cube\. Pass their classes: layers=\[Cube\]; on"
    ):
        parity.replay(tmp_path / "r", "reference")
    assert parity.replay(tmp_path / "r", "reference", layers=[Cube]).ok


def test_losses_and_optimizers_of_a_user_are_given(tmp_path):
    recorded(tmp_path / "r", loss=Doubled(), optimizer=Slow(0.1))
    with pytest.raises(FileError, match=r"r: the loss Doubled is not gpunet's\. Pass one: loss=Doubled\(…\)"):
        parity.replay(tmp_path / "r", "reference")
    with pytest.raises(FileError, match=r"the optimizer Slow is not gpunet's\. Pass one: optimizer=Slow\(…\)"):
        parity.replay(tmp_path / "r", "reference", loss=Doubled())
    assert parity.replay(tmp_path / "r", "reference", loss=Doubled(), optimizer=Slow(0.1)).ok
    off = parity.replay(tmp_path / "r", "reference", loss=Doubled(), optimizer=Slow(0.2))
    assert (str(off.first), off.first.bad[0][-8:]) == ("first step: Dense '0': '0.weight'", "recorded")
    assert "look at what runs them together, the loss, the optimizer or states" in off.verdict


def test_functions_are_given(tmp_path):
    rate = optim.SGD(lambda step: 0.1)
    recorded(tmp_path / "r", optimizer=rate)
    with pytest.raises(FileError, match=r"optimizer SGD was made with the function <lambda>\. Pass one: optimizer=SGD"):
        parity.replay(tmp_path / "r", "reference")
    assert parity.replay(tmp_path / "r", "reference", optimizer=rate).ok


@pytest.mark.parametrize(
    "one",
    [
        losses.CrossEntropy(label_smoothing=0.1, class_weights={0: 1.0, 1: 2.0}, ignore_label=-1),
        losses.Huber(0.25),
        optim.AdamW(schedules.Cosine(0.1, steps=100), beta1=0.8),
        optim.SGD(schedules.CosineRestarts(0.1, steps=10, factor=2)),
        optim.Adam(groups={"*.bias": {"weight_decay": 0.0, "learning_rate": schedules.Exponential(0.5, gamma=0.9)}}),
    ],
    ids=repr,
)
def test_settings_come_back(one):
    back = constructed(settings(one))
    assert repr(back) == repr(one)
    assert type(back) is type(one)


def test_a_failing_record_leaves_nothing(tmp_path):
    class Kept(Cube):
        def config(self):
            return {"array": np.ones(3)}

    with pytest.raises(ArgumentError):
        recorded(tmp_path / "r", Kept())
    with pytest.raises(FileError, match="cannot be written"):
        recorded(tmp_path / "no" / "r")
    assert not list(tmp_path.iterdir())


def test_other_versions_and_kinds_are_refused(path, tmp_path):
    content, arrays = files.read(path, "recording", 1)
    files.write(tmp_path / "newer", "recording", 2, content, arrays)
    with pytest.raises(FileError, match=r"newer is a 'gpunet recording 2', and this gpunet reads version 1\. Update"):
        parity.replay(tmp_path / "newer")
    files.write(tmp_path / "model", "model", 1, content, arrays)
    with pytest.raises(FileError, match=r"model is no gpunet recording: it is a gpunet model"):
        parity.replay(tmp_path / "model")
    with pytest.raises(FileError, match=r"nowhere cannot be read: it does not exist"):
        parity.replay(tmp_path / "nowhere")


def test_a_truncated_or_altered_recording_is_refused(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for length in rng.integers(0, len(whole) - 1, 20):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError):
            parity.replay(path, "reference")
    for place in rng.integers(0, 8 * len(whole), 60):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(changed))
        with pytest.raises(FileError):
            parity.replay(path, "reference")


LOST = ["architecture", "loss", "optimizer", "seed", "steps", "environment", "batches/1/0", "initial/0.bias",
        "results/layers/1/output", "results/last/before/slot/m/0.weight", "results/losses", "custom"]  # fmt: skip


@pytest.mark.parametrize("name", LOST)
def test_an_incomplete_recording_is_refused(name, path):
    content, arrays = files.read(path, "recording", 1)
    (content if name in content else arrays).pop(name)
    files.write(path, "recording", 1, content, arrays)
    with pytest.raises(FileError):
        parity.replay(path, "reference")


CRAFTED = [
    ("architecture", None), ("architecture", {}), ("custom", None), ("custom", [1]), ("seed", float("inf")),
    ("steps", 10**9), ("steps", 0), ("loss", {}), ("loss", {"loss": "Huber", "config": {"delta": True}}),
    ("environment", "x"), ("optimizer", {"optimizer": "os", "config": {}}), ("precision", "float3"),
    ("results/losses", np.zeros(0)), ("results/layers/1/output", np.zeros(3)),
    ("results/layers/2/input gradient", np.zeros((12, 9))), ("results/layers/loss gradient", np.zeros(3)),
    ("initial/0.weight", np.zeros((2, 2))), ("batches/1/0", np.zeros((12, 9))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), CRAFTED, ids=lambda one: one if isinstance(one, str) else "")
def test_a_recording_that_was_made_up_is_refused(name, value, path):
    content, arrays = files.read(path, "recording", 1)
    (content if name in content else arrays)[name] = value
    files.write(path, "recording", 1, content, arrays)
    with pytest.raises(FileError):
        parity.replay(path, "reference")


@pytest.mark.parametrize(
    "name", ["results/layers/1/output", "results/first/gradient/0.weight", "results/last/weight/2.bias"]
)
def test_one_number_that_is_off_is_found(name, path):
    """As if the device that recorded had computed it."""
    content, arrays = files.read(path, "recording", 1)
    flat = arrays[name].reshape(-1)
    flat[np.abs(flat).argmax()] *= 1 + 1e-5
    files.write(path, "recording", 1, content, arrays)
    report = parity.replay(path, "reference")
    assert not report.ok
    assert report.first.bad == ("cpu, recorded",)
