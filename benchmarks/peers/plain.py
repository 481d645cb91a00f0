"""gpunet without Numba: formulas as NumPy calls, block by block."""

from __future__ import annotations

from problems import Problem
from race import Contender

from gpunet_backends.numpy_ import NumpyBackend
from peers import gpunet_


def train(problem: Problem) -> Contender:
    return gpunet_.train(problem, NumpyBackend(jit=False))


def infer(problem: Problem) -> Contender:
    return gpunet_.infer(problem, NumpyBackend(jit=False))
