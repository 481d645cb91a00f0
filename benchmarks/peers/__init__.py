"""The contenders. Each module has ``train(problem)`` and ``infer(problem)``, which return a Contender.

train  step(i) updates the network with batch i and returns its loss before the update
infer  step(i) returns the logits for batch i, without dropout
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import NamedTuple

from problems import Problem
from race import Contender


class Peer(NamedTuple):
    """module  of this package
    needs  the package that must be installed
    relu_only  knows networks of Dense and ReLU only, without dropout
    tolerance  of its losses after updates, relative
    """

    module: str
    needs: str
    relu_only: bool = False
    tolerance: float = 1e-4


PEERS = {
    "gpunet": Peer("gpunet_", "gpunet"),
    "plain": Peer("plain", "gpunet"),
    "hand": Peer("hand", "numba", relu_only=True),
    "torch": Peer("torch_", "torch"),
    "compile": Peer("torch_compile", "torch"),
    "jax": Peer("jax_", "jax"),
    # these add Adam's eps to √v before its correction: a larger eps in the first steps
    "sklearn": Peer("sklearn_", "sklearn", relu_only=True, tolerance=1e-3),
    "thinc": Peer("thinc_", "thinc", relu_only=True, tolerance=1e-3),
}


def installed() -> list[str]:
    """Names of the peers whose package is there."""
    return [name for name, peer in PEERS.items() if find_spec(peer.needs)]


def train(name: str, problem: Problem) -> Contender:
    return import_module(f"peers.{PEERS[name].module}").train(problem)


def infer(name: str, problem: Problem) -> Contender:
    return import_module(f"peers.{PEERS[name].module}").infer(problem)
