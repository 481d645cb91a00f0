"""The benchmarks still run, and their peers compute the same. Nothing is timed."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import gpunet as gn

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts_find_each_other(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)


def load(name):
    return importlib.import_module(name)


def small(**changes):
    """A case like that of the MLP."""
    return load("problems").Case((12, 16, 8, 5), (4,), learning_rate=1e-2)._replace(**changes)


def require(peer):
    needs = load("peers").PEERS[peer].needs
    pytest.importorskip(needs, reason=f"{needs} is not installed")


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("peer", ["plain", "hand", "torch", "jax", "sklearn", "thinc"])
def test_peers_of_the_mlp_step_agree(peer, optimizer):
    require(peer)
    load("mlp_step").check_agreement(load("problems").make_problem(small(), 4, optimizer), [peer])


@pytest.mark.parametrize("peer", ["plain", "torch", "jax"])
def test_peers_of_the_regularised_step_agree(peer):
    require(peer)
    problem = load("problems").make_problem(small(hidden="layernorm-gelu"), 4)
    load("mlp_step").check_agreement(problem, [peer])


@pytest.mark.parametrize("peer", ["gpunet", "torch", "jax"])
def test_dropout_is_on_while_timed(peer):
    require(peer)
    problem = load("problems").make_problem(small(), 4)
    plain, dropped = (load("peers").train(peer, replace(problem, dropout=rate)).step(0) for rate in (0.0, 0.5))
    assert float(plain) != float(dropped)


@pytest.mark.parametrize("peer", ["plain", "hand", "torch", "jax"])
def test_peers_of_inference_agree(peer):
    require(peer)
    peers, problem = load("peers"), load("problems").make_problem(small(), 4)
    load("inference").check_agreement({name: peers.infer(name, problem) for name in ("gpunet", peer)})


def test_a_wrong_peer_is_noticed(monkeypatch):
    mlp, problem, right = load("mlp_step"), load("problems").make_problem(small(), 4), load("peers").train
    wrong = replace(problem, learning_rate=1.1 * problem.learning_rate)
    monkeypatch.setattr(mlp, "train", lambda name, problem: right("gpunet", wrong if name == "torch" else problem))
    mlp.check_agreement(problem, ["jax"])
    with pytest.raises(AssertionError, match="torch"):
        mlp.check_agreement(problem, ["jax", "torch"])


def test_wrong_outputs_are_noticed():
    peers, problem = load("peers"), load("problems").make_problem(small(), 4)
    right, wrong = (peers.infer("gpunet", replace(problem, x=x)) for x in (problem.x, [1.001 * x for x in problem.x]))
    with pytest.raises(AssertionError, match="other: outputs are off by"):
        load("inference").check_agreement({"gpunet": right, "other": wrong})


@pytest.mark.parametrize("kernel", ["Adam", "Dropout forward + backward", "LayerNorm forward + backward"])
def test_kernels_agree_and_a_wrong_one_is_noticed(kernel, monkeypatch):
    require("torch")
    monkeypatch.setattr(load("peers.torch_compile"), "compiled", lambda function: function)
    kernels = load("kernels")
    monkeypatch.setattr(kernels, "compiled", lambda function: function)
    found = next(k for k in kernels.KERNELS if k.name == kernel)
    contenders = found.contenders()
    kernels.check_agreement(found, contenders)
    wrong = load("race").Contender(lambda i: tuple(1.001 * a for a in contenders["torch"].step(i)))
    with pytest.raises(AssertionError, match="torch"):
        kernels.check_agreement(found, contenders | {"torch": wrong})


@pytest.mark.parametrize("layer", ["GELU", "LayerNorm"])
def test_layers_of_the_benchmarks(layer):
    assert gn.gradcheck(getattr(load("layers"), layer)(), (6, 5))


@pytest.fixture
def clock(monkeypatch):
    """Time passes only by sleeping and by the steps of contenders."""
    clock = SimpleNamespace(now=0.0, log=[])
    clock.sleep = lambda seconds: clock.log.append("sleep") or passes(clock, seconds)
    clock.perf_counter = lambda: clock.now
    monkeypatch.setattr(load("race"), "time", clock)
    return clock


def passes(clock, seconds):
    clock.now += seconds


def contender(clock, name, step, finish=0.0):
    """Takes ``step`` seconds a step, and ``finish`` at the end of a turn."""

    def run(i):
        clock.log.append((name, i))
        passes(clock, step)

    return load("race").Contender(run, lambda: passes(clock, finish))


def test_a_race_times_turns_to_their_end_and_rotates(clock):
    race = load("race")
    contenders = {"a": contender(clock, "a", 0.01), "b": contender(clock, "b", 0.02, finish=0.05)}
    times = race.race(contenders, rounds=3, batches=4)
    assert times["a"] == pytest.approx([10_000] * 3)
    calls = max(2, round(race.TURN / (0.02 + 0.05)))  # by single steps before the first round
    assert times["b"] == pytest.approx([20_000 + 50_000 / calls] * 3)
    turns = [clock.log[n + 1][0] for n, entry in enumerate(clock.log) if entry == "sleep"]
    assert turns == ["a", "b", *"ab", *"ba", *"ab"]  # first, how many steps fill a turn
    assert {i for name, i in (e for e in clock.log if e != "sleep")} == {0, 1, 2, 3}


def test_ratios_have_the_quartiles_of_rounds():
    result = load("race").summary({"gpunet": [1.0, 2.0, 4.0], "other": [3.0, 2.0, 2.0]})
    assert result["microseconds"]["other"] == {"min": 2.0, "q1": 2.0, "median": 2.0, "q3": 2.5}
    assert result["ratio"] == {"other": {"q1": 0.75, "median": 1.0, "q3": 2.0, "min": 2.0}}


def test_results_become_tables():
    table = load("table")
    race = load("race").summary({"gpunet": [1000.0, 2000.0, 4000.0], "hand": [3000.0, 2000.0, 2000.0]})
    kernels = {"options": {}, "rows": [{"kernel": "Adam"} | race]}
    sizes = {"options": {}, "rows": [{"name": "gpunet", "megabytes": 71.6}]}
    made = table.tables({"kernels": kernels, "installed size": sizes})
    assert list(made) == ["Single kernels", "Installed size"]
    assert made["Single kernels"].splitlines()[0] == "| kernel | gpunet, µs | hand |"
    assert made["Single kernels"].splitlines()[2] == "| Adam | 1,000 (2,000) | 2.00 (0.75–2.00) |"
    assert made["Installed size"].splitlines()[2] == "| gpunet | 72 |"


def test_installed_size_follows_requirements():
    pytest.importorskip("packaging", reason="packaging is not installed")
    size = load("installed_size")
    found = size.closure(size.Requirement("gpunet"), {})
    assert {"gpunet", "numpy", "rich", "markdown-it-py"} <= set(found)
    assert "numba" not in found
    assert size.megabytes(found["gpunet"]) > 0.1 < size.megabytes(found["numpy"])


def test_the_profile_names_functions(monkeypatch, capsys):
    profile = load("mlp_profile")
    monkeypatch.setattr(profile, "installed", lambda: ["gpunet"])  # the overhead beside "hand" is timed
    profile.profile(load("problems").make_problem(small(), 4), rounds=2, calls=3)
    assert "gemm" in capsys.readouterr().out


def test_the_contenders_of_the_choices_compute_the_same(monkeypatch):
    pytest.importorskip("numba", reason="Numba is not installed")
    choices = load("choices")
    for one in choices.products(8, 512, 256).values():
        results = [np.asarray(contender.step(0)) for contender in one.values()]
        assert all(np.allclose(r, results[0], rtol=1e-3, atol=1e-3) for r in results)
    monkeypatch.setattr(choices, "TIMED_RATE", 0.1)
    whole, halves = (choices.updates(1000)[name].step for name in ("gpunet", "halves"))
    whole(0)
    halves(0)
    losses = [float(contender.step(1)) for contender in choices.steps(32).values()]
    assert losses == [losses[0]] * 3  # the number of threads changes nothing


# On a GPU. Here the script only runs on a CPU, where most contenders do not exist


def test_the_script_for_gpus_runs_on_a_cpu(tmp_path):
    require("torch")
    path = tmp_path / "cuda.json"
    command = [sys.executable, str(FOLDER / "run_cuda.py"), "--device", "cpu", "--quick", "--json", str(path)]
    env = os.environ | {"GPUNET_JIT": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(path.read_text())
    assert {"commit", "date", "gpu", "libraries", "versions", "options", "ceilings", "ceilings_after"} <= set(result)
    assert [row["name"] for row in result["rows"] if "failed" in row] == []
    kernels = [row for row in result["rows"] if row["kind"] == "kernel"]
    steps = {(row["name"], row["precision"]): row for row in result["rows"] if row["kind"] == "step"}
    assert len(kernels) == 8
    assert {name for name, _ in steps} == {"mlp", "wide", "large", "regularised", "host"}
    for row in [*kernels, *(row for (_, precision), row in steps.items() if precision == "float32")]:
        assert set(row["microseconds"]) == {"gpunet", "torch"}
        assert row["ratio"]["torch"]["min"] > 0
    for (name, precision), row in steps.items():
        assert {"compile", "graph"} <= set(row["not_available"])
        assert ("compiled-graph" in row["not_available"]) == (name == "regularised")
        assert ("pinned-graph" in row["not_available"]) == (name == "host")
        assert ("torch" in row["not_available"]) == (precision == "tf32")
        assert ("gpunet" in row["not_available"]) != ("gpunet" in row.get("microseconds", {}))
        assert ("percent_of_floor" in row) == (precision != "tf32" and name != "regularised")


def test_the_script_for_gpus_says_in_a_line_why_it_cannot(monkeypatch):
    require("torch")
    from gpunet.errors import DeviceError

    def refuse(name):
        raise DeviceError("device 'cuda' is not usable: no NVIDIA driver found.")

    script = load("run_cuda")
    monkeypatch.setattr(script.gn, "device", refuse)
    with pytest.raises(SystemExit) as caught:
        script.main([])
    assert caught.value.code == "no benchmark on a GPU: device 'cuda' is not usable: no NVIDIA driver found."


def test_no_script_shadows_a_package():
    """CuPy imports ``cuda.pathfinder``: a ``cuda.py`` beside a script that runs would hide it."""
    assert not {path.stem for path in FOLDER.iterdir()} & {"cuda", "cupy", "torch", "numpy", "jax", "nvmath"}
