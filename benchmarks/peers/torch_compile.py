"""PyTorch with torch.compile: forward, loss and backward compiled, the optimizer's fused kernel as it is."""

from __future__ import annotations

from typing import Any

import torch
from problems import Problem
from race import Contender

from peers import torch_


def train(problem: Problem) -> Contender:
    return torch_.train(problem, compiled)


def infer(problem: Problem) -> Contender:
    return torch_.infer(problem, compiled)


def compiled(function: Any) -> Any:
    """Compiled for the shapes it meets; an error, instead of eager execution, where that fails.

    Earlier compilations are forgotten: after eight for one piece of code PyTorch would give up.
    """
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, dynamic=False)
