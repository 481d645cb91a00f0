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

    def function():
        model, loss, _, given = case()
        return model, loss, optim.SGD(lambda step: 0.1), given

    def raises():
        return 1 / 0

    class Broken(layers.Tanh):
        def forward(self, x, ctx):
            return 1 / 0, None

    def broken():
        return case(Broken)
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
    assert json.loads(out)["steps"] in (3, 6)
    status, out, _ = run("replay", "r.safetensors", "--device", "cpu", "--import", "mine")
    assert status == 0
    assert "reference, recorded and cpu agree" in out
    status, out, _ = run("replay", "r.safetensors", "--device", "cpu", "--import", "mine.py", "--json")
    assert json.loads(out)["ok"]


def test_compare_tells_where_two_devices_differ(run):
    assert run("compare", "mine:case", "--devices", "reference,cpu")[0] == 0
    status, out, _ = run("compare", "mine:odd", "--devices", "reference,cpu")
    assert status == 1
    assert "layer: Odd 'mine': output: cpu is " in out
    status, out, error = run("compare", "mine:odd", "--devices", "reference, cpu", "--json")
    assert status == 1
    assert json.loads(out)["verdict"].startswith("layer: Odd 'mine': output")
    assert "layer: Odd 'mine': output" in error


BAD = {
    "a case": (["record", "nothing", "--out", "r"], "there is no case 'nothing'. Use one of: digits, regularised"),
    "devices": (["compare", "digits", "--devices", "cpu"], "--devices takes two devices such as cpu,cuda, but got"),
    "a device": (["compare", "digits", "--devices", "cpu,tpu"], "device 'tpu' is unknown"),
    "a module": (["record", "nowhere:f", "--out", "r"], "nowhere cannot be imported: ModuleNotFoundError"),
    "a file": (["record", "nowhere.py:f", "--out", "r"], "nowhere.py cannot be imported: FileNotFoundError"),
    "a function": (["record", "mine:f", "--out", "r"], "mine has no function 'f'"),
    "a result": (
        ["record", "mine:wrong", "--out", "r"],
        "must return (model, loss, optimizer, batches), but returned a int",
    ),
    "a folder": (
        ["record", "regression", "--out", "no/r"],
        "--out needs a file in a folder that is there, but got 'no/r'",
    ),
    "a recording": (["replay", "mine.py"], "mine.py is no .safetensors file"),
    "the same device": (
        ["compare", "digits", "--devices", "cpu,cpu"],
        "are the same device here, numpy: that compares",
    ),
    "no name": (["record", "digits", "--out", ""], "--out needs a file in a folder that is there, but got ''"),
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
    assert "r: it has layers that are not gpunet's: Cube. Pass their classes: layers=[Cube]; on the command" in error
    assert "--import MODULE" in error


def test_the_case_gives_loss_and_optimizer(run):
    """Where a recording cannot hold them: a function as learning rate."""
    status, out, _ = run("record", "mine:function", "--out", "r", "--device", "cpu")
    assert status == 0
    assert "Compare with: gpunet parity replay r --case mine:function" in out
    status, _, error = run("replay", "r", "--device", "reference", "--import", "mine")
    assert status == 2
    assert "was made with the function <lambda>" in error
    assert run("replay", "r", "--device", "reference", "--case", "mine:function")[0] == 0


@pytest.mark.parametrize("case", ["raises", "broken"])
def test_errors_of_a_users_code_are_status_2(case, run):
    status, out, error = run("compare", f"mine:{case}", "--devices", "cpu,reference")
    assert (status, out) == (2, "")
    assert "ZeroDivisionError" in error
