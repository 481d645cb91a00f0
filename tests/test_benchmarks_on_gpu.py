"""The training steps on a GPU: what is checked before they are timed. On a CPU, where nothing is captured."""

import contextlib
import importlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts_find_each_other(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    pytest.importorskip("torch", reason="torch is not installed")


def load(name):
    return importlib.import_module(name)


@pytest.fixture
def on_cpu(monkeypatch):
    """The modules of the training steps on a GPU, with turns that take no time; a report that is not written."""
    monkeypatch.setattr(load("race"), "TURN", 0.002)
    monkeypatch.setattr(load("race"), "PAUSE", 0.0)
    peers = load("cuda_peers")
    report = load("cuda_report").Report("cpu", {}, None, minutes=1)
    return SimpleNamespace(
        steps=load("cuda_steps"), setting=peers.Setting("cpu", "float32"), report=report, peers=peers
    )


def test_a_contender_that_fails_or_disagrees_does_not_stop_the_others(on_cpu, monkeypatch):
    steps, torch_ = on_cpu.steps, on_cpu.steps.torch_

    def wrong(problem, setting):
        return torch_.train(replace(problem, learning_rate=2 * problem.learning_rate), setting)

    def broken(problem, setting):
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setitem(steps.CONTENDERS, "compile", wrong)
    monkeypatch.setitem(steps.CONTENDERS, "graph", broken)
    ceilings = load("cuda_ceilings").Ceilings(1e9, {"float32": 1e9})
    steps.run_step(on_cpu.report, "mlp", 16, on_cpu.setting, ["gpunet", "torch", "compile", "graph"], ceilings, 2)
    (row,) = on_cpu.report.rows
    assert set(row["microseconds"]) == {"gpunet", "torch"}
    assert row["failed"]["graph"] == "RuntimeError: out of memory and more"
    assert row["failed"]["compile"].startswith("disagrees: Not equal to tolerance")
    assert on_cpu.report.disagreed
    assert row["gradients_off"] < 1e-6


def test_wrong_gradients_are_not_timed(on_cpu, monkeypatch):
    steps = on_cpu.steps
    right = steps.gpunet_.gradients
    monkeypatch.setattr(steps.gpunet_, "gradients", lambda *args: {k: 1.1 * g for k, g in right(*args).items()})
    monkeypatch.setattr(
        steps,
        "expected_gradients",
        lambda case, batch: right(steps.problem_of(case, batch), on_cpu.setting, steps.ROWS),
    )
    ceilings = load("cuda_ceilings").Ceilings(1e9, {"float32": 1e9})
    steps.run_step(on_cpu.report, "mlp", 16, on_cpu.setting, ["gpunet", "torch"], ceilings, 2)
    (row,) = on_cpu.report.rows
    assert set(row["microseconds"]) == {"torch"}
    assert row["ratio"] == {}
    assert row["failed"]["gradients"].startswith("disagrees: 'loss' is off by 1.0e-01")


def test_wrong_gradients_are_noticed(on_cpu):
    steps = on_cpu.steps
    case = steps.case_of("regularised", True)
    right = steps.expected_gradients(case, 16)
    assert steps.check_gradients(right, right, 1e-5) == 0
    for factor in (1.001, np.nan):
        with pytest.raises(AssertionError, match=r"'0\.weight' is off by"):
            steps.check_gradients(right | {"0.weight": factor * right["0.weight"]}, right, 1e-5)


def test_a_captured_step_of_the_peer_begins_where_it_was_built(on_cpu, monkeypatch):
    import torch

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    steps, torch_ = on_cpu.steps, on_cpu.steps.torch_
    problem = steps.problem_of(steps.case_of("mlp", True), 16)
    network = torch_.Network(problem, on_cpu.setting, capturable=True)
    places = [p.data_ptr() for p in network.parameters]
    xs, ys = torch_.batches_of(problem, network.device)
    torch_.warm_up(network, xs[0], ys[0])
    assert places == [p.data_ptr() for p in network.parameters]
    losses = [float(network.step(xs[i], ys[i])) for i in range(6)]
    assert losses == steps.losses_of(torch_.train(problem, on_cpu.setting), 20)


def test_what_a_step_must_do():
    ceilings = load("cuda_ceilings")
    assert ceilings.operations((2, 3, 4), 5) == 2 * 5 * (2 * 2 * 3 + 3 * 3 * 4)
    first = 4 * ((10 + 6 + 15) + (10 + 15 + 6)) + 28 * 9
    second = 4 * ((15 + 12 + 20) + (15 + 20 + 12) + (20 + 12 + 2 * 15)) + 28 * 16
    assert ceilings.fewest_bytes((2, 3, 4), 5, "float32") == first + second + 4 * (2 * 20 + 5)
    floor = ceilings.floor((2, 3, 4), 5, "float32", ceilings.Ceilings(1.0, {"float32": 1e9}), moves=True)
    assert floor["larger"] == floor["bytes"] == ceilings.fewest_bytes((2, 3, 4), 5, "float32")
