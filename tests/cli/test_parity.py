"""gpunet parity, as it is called."""

from __future__ import annotations

import json
import sys
import textwrap

import pytest

from gpunet.cli import main

MINE = """
    import numpy as np
    from gpunet import layers, losses, optim
    from gpunet.pointwise import Pointwise

    class Cube(Pointwise):
        def formula(self, xp, x):
            return x * x * x

        def derivative(self, xp, dy, x, y):
            return 3 * dy * x * x

    class Odd(layers.Tanh):
        def forward(self, x, ctx):
            y, saved = super().forward(x, ctx)
            return y * (1 + 1e-4 * (ctx.backend.name == "numpy")), saved

    def batches():
        rng = np.random.default_rng(0)
        return [(rng.standard_normal((8, 4)), rng.standard_normal((8, 2))) for _ in range(3)]

    def case(layer=Cube):
        model = layers.Sequential(layers.Dense(4), layer(name="mine"), layers.Dense(2))
        return model, losses.MeanSquaredError(), optim.Adam(0.01), batches()

    def odd():
        return case(Odd)

    def wrong():
        return 7
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """-> (status, standard output, standard error)"""
    (tmp_path / "mine.py").write_text(textwrap.dedent(MINE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["gpunet", "parity", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code, captured.out, captured.err

    return call


@pytest.mark.parametrize("case", ["regression", "mine:case", "mine.py:case"])
def test_record_show_and_replay(case, run):
    status, out, _ = run("record", case, "--out", "r.safetensors", "--device", "reference", "--seed", "3")
    assert status == 0
    assert "r.safetensors: " in out
    assert "Compare with: gpunet parity replay r.safetensors" in out
    status, out, _ = run("show", "r.safetensors")
    assert status == 0
    assert "MeanSquaredError" in out
    assert "float32" in out
    status, out, _ = run("show", "r.safetensors", "--json")
    assert json.loads(out)["steps"] in (3, 10)
    status, out, _ = run("replay", "r.safetensors", "--device", "cpu", "--import", "mine")
    assert status == 0
    assert "reference, recorded and numpy agree" in out
    status, out, _ = run("replay", "r.safetensors", "--device", "cpu", "--import", "mine.py", "--json")
    assert json.loads(out)["ok"]


def test_compare_tells_where_two_devices_differ(run):
    assert run("compare", "mine:case", "--devices", "reference,cpu")[0] == 0
    status, out, _ = run("compare", "mine:odd", "--devices", "reference,cpu")
    assert status == 1
    assert "layer: Odd 'mine': output: off by more than" in out
    status, out, _ = run("compare", "mine:odd", "--devices", "reference,cpu", "--json")
    assert status == 1
    assert json.loads(out)["verdict"].startswith("layer: Odd 'mine': output")


BAD = {
    "a case": (["compare", "nothing"], "there is no case 'nothing'. Use one of: digits, regularised, regression"),
    "devices": (["compare", "digits", "--devices", "cpu"], "--devices takes two devices such as cpu,cuda, but got"),
    "a device": (["compare", "digits", "--devices", "cpu,tpu"], "device 'tpu' is unknown"),
    "a module": (["record", "nowhere:f", "--out", "r"], "nowhere cannot be imported: ModuleNotFoundError"),
    "a file": (["record", "nowhere.py:f", "--out", "r"], "nowhere.py cannot be imported: FileNotFoundError"),
    "a function": (["record", "mine:f", "--out", "r"], "mine has no function 'f'"),
    "a result": (
        ["record", "mine:wrong", "--out", "r"],
        "must return (model, loss, optimizer, batches), but returned 7",
    ),
    "a folder": (["record", "regression", "--out", "no/r"], "no/r cannot be written"),
    "a recording": (["replay", "mine.py"], "mine.py is no .safetensors file"),
    "no file": (["show", "none"], "none cannot be read: it does not exist"),
    "seed": (["compare", "digits", "--seed", "-1"], "Invalid value for '--seed'"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_status_2(name, run, tmp_path):
    words, message = BAD[name]
    before = sorted(path.name for path in tmp_path.iterdir())
    status, out, error = run(*words)
    assert (status, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "__pycache__") == before


def test_layers_of_a_recording_are_named(run):
    assert run("record", "mine:case", "--out", "r", "--device", "cpu")[0] == 0
    status, _, error = run("replay", "r", "--device", "reference")
    assert status == 2
    assert "r has layers that are not gpunet's: Cube. Pass their classes: layers=[Cube]; on the command" in error
    assert "--import MODULE" in error
