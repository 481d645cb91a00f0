"""The benchmarks still run, and all peers compute the same. Nothing is timed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("peer", ["numpy", "torch"])
def test_peers_of_the_mlp_step_agree(peer, optimizer):
    if peer == "torch":
        pytest.importorskip("torch", reason="PyTorch is not installed")
    mlp = load("mlp_step")
    mlp.check_agreement(mlp.make_problem(8), optimizer, [peer])


def test_a_wrong_peer_is_noticed(monkeypatch):
    mlp = load("mlp_step")
    monkeypatch.setattr(mlp, "BETA1", 0.8)  # NumpyStep reads it at each step
    problem = mlp.make_problem(8)
    expected = mlp.losses_of("numpy", problem, "adam")
    monkeypatch.setattr(mlp, "BETA1", 0.9)
    assert not np.allclose(mlp.losses_of("numpy", problem, "adam"), expected, rtol=1e-4)


def test_the_profile_records_all_matrix_products():
    mlp = load("mlp_step")
    calls = load("mlp_profile").record(lambda: mlp.gpunet_step(mlp.make_problem(8), "adam", 1e-3))
    products = [arguments for function, arguments in calls if function is np.matmul]
    assert len(products) == 3 + 3 + 2  # y, dW, dx: none for the first layer
    assert len(calls) > len(products)
