"""What is computed: networks, batches and initial values, the same for all peers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # of Adam
LAYERNORM_EPS = 1e-5

Hidden = Literal["relu", "layernorm-gelu"]


class Case(NamedTuple):
    """A network: widths from the inputs to the classes, what follows each hidden Dense, dropout's rate, batch sizes.

    learning_rate  of the updates whose losses are compared: Adam's; SGD gets ten times as much
    """

    widths: tuple[int, ...]
    batches: tuple[int, ...]
    hidden: Hidden = "relu"
    dropout: float = 0.0
    learning_rate: float = 1e-3


MLP = (784, 512, 256, 10)
CASES = {
    "mlp": Case(MLP, (8, 32, 128, 512, 4096)),
    "wide": Case((1024, 4096, 4096, 1024), (256,), learning_rate=1e-4),
    "deep": Case((64, *[64] * 50, 10), (32,), learning_rate=1e-5),
    "regularised": Case(MLP, (128,), "layernorm-gelu", 0.1),
    "digits": Case((64, 256, 256, 10), (32,), dropout=0.2),
}


@dataclass(frozen=True)
class Problem:
    """A case with its batches and initial arrays: W (I, O), b, after a hidden one scale and shift, W, ..."""

    widths: tuple[int, ...]
    hidden: Hidden
    dropout: float
    optimizer: Literal["adam", "sgd"]
    learning_rate: float
    x: list[Any]
    y: list[Any]
    initial: list[Any]

    @property
    def batch(self) -> int:
        """Samples of a batch."""
        return len(self.x[0])


def make_problem(case: Case, batch: int, optimizer: Literal["adam", "sgd"] = "adam", batches: int = 20) -> Problem:
    """Random inputs and labels, He-normal weights; -> a problem without dropout, at the case's learning rate.

    Biases are not zero, nor scales one: so each shows in the first loss.
    """
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batches, batch, case.widths[0]), dtype=np.float32)
    y = rng.integers(0, case.widths[-1], (batches, batch))
    initial = []
    for layer, (i, o) in enumerate(pairwise(case.widths)):
        initial += [rng.standard_normal((i, o), dtype=np.float32) * np.float32(math.sqrt(2 / i))]
        initial += [rng.normal(0, 0.1, o).astype(np.float32)]
        if case.hidden == "layernorm-gelu" and layer < len(case.widths) - 2:
            initial += [rng.normal(mean, 0.1, o).astype(np.float32) for mean in (1, 0)]
    rate = case.learning_rate * (10 if optimizer == "sgd" else 1)
    return Problem(case.widths, case.hidden, 0.0, optimizer, rate, list(x), list(y), initial)
