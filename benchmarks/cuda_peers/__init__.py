"""The contenders on a GPU: gpunet, and PyTorch in the ways that it is used. Each starts from a problem's weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from problems import Problem
from race import Contender

PRECISIONS = ("float32", "tf32", "bfloat16")
"""float32   products in full float32
tf32      float32, products with operands rounded to TF32
bfloat16  products in bfloat16, weights and their update in float32
"""
PEERS = ("gpunet-eager", "torch", "compile", "graph", "compiled-graph", "pinned-graph")
"""Contenders besides gpunet; the last one only where batches come from the host."""


class NotAvailable(Exception):
    """A contender does not exist here; says why."""


class Setting(NamedTuple):
    """Where and how: device "cuda" or "cpu", one of PRECISIONS, and whether batches come from the host each step."""

    device: str
    precision: str
    host_inputs: bool = False


class Entrant(NamedTuple):
    """A contender whose learning rate can be set between steps."""

    contender: Contender
    set_learning_rate: Callable[[float], None]


Train = Callable[[Problem, Setting], Entrant]
