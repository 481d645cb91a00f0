"""Training steps on a GPU: cases, the check that contenders compute the same, and one row of the results."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from cuda_ceilings import Ceilings, fewest_bytes, floor, operations
from cuda_peers import Entrant, Setting, Train, gpunet_, torch_
from cuda_report import Report
from problems import CASES, MLP, Case, Problem, make_problem

TIMED_RATE = 1e-9  # weights stay as they are: units that die would make zeros, on which products are faster
INPUTS = 2**28  # bytes of all batches of a case, so that they are read from memory and not from a cache
ROWS = 64  # of the batch whose gradients are compared with those of a CPU

GPU_CASES = {
    "mlp": Case(MLP, (32, 128, 512, 4096, 65536), learning_rate=1e-4),
    "wide": CASES["wide"]._replace(batches=(256, 4096)),
    "large": Case((8192, 8192, 8192, 8192), (8192,), learning_rate=3e-5),
    "regularised": CASES["regularised"]._replace(batches=(128, 4096), learning_rate=1e-4),
    "host": Case(MLP, (4096,), learning_rate=1e-4),
}
"""``host`` is ``mlp`` whose batches are NumPy arrays."""
TINY = (12, 16, 8, 5)
"""Widths that stand for all of them where there is no GPU."""

CONTENDERS: dict[str, Train] = {
    "gpunet": gpunet_.train,
    "gpunet-eager": gpunet_.train_eager,
    "torch": torch_.train,
    "compile": torch_.train_compiled,
    "graph": torch_.train_graph,
    "compiled-graph": torch_.train_compiled_graph,
    "pinned-graph": torch_.train_pinned_graph,
}


class Tolerance(NamedTuple):
    """Of losses, relative: ``first`` before any update, ``later`` after each of five. Of gradients, by ‖a - b‖ / ‖b‖:
    ``kinked`` with ReLU, where a value that rounds to the other side of 0 changes a whole row, ``smooth`` without.
    """

    first: float
    later: float
    kinked: float
    smooth: float


TOLERANCES = {
    # two orders of summation differ by 1e-7, 6e-6 after updates; a learning rate off by a tenth by 4e-4 or more
    "float32": Tolerance(5e-6, 1e-4, 2e-3, 2e-5),
    # operands of 11 significant bits: losses up to 6e-5 and 2e-4 from those in float32, gradients 3e-2 and 7e-4
    "tf32": Tolerance(5e-4, 5e-4, 1e-1, 5e-3),
    # of 8 bits, and results rounded, too: losses up to 4e-4 and 5e-4, gradients 7e-2 and 1e-2
    "bfloat16": Tolerance(2e-3, 3e-3, 2e-1, 5e-2),
}
"""Each about four times what rounding operands by hand showed for these networks. All are compared with float32."""


def case_of(name: str, tiny: bool) -> Case:
    """A case; ``tiny`` keeps what follows its layers only."""
    case = GPU_CASES[name]
    return case._replace(widths=TINY, batches=(16,), learning_rate=1e-4) if tiny else case


@lru_cache(maxsize=1)
def problem_of(case: Case, batch: int) -> Problem:
    """With as many batches as keep them out of the cache, 4 to 1,000.

    Weights lie in memory as PyTorch wants them: else each of its contenders would transpose 800 MB.
    """
    size = 4 * batch * case.widths[0]
    count = 20 if case.widths == TINY else max(4, min(1000, math.ceil(INPUTS / size)))
    problem = make_problem(case, batch, batches=count)
    return replace(problem, initial=[np.asfortranarray(a) for a in problem.initial])


def losses_of(entrant: Entrant, batches: int) -> list[float]:
    """Before the first update, and after each of five."""
    return [float(entrant.contender.step(i % batches)) for i in range(6)]


@lru_cache(maxsize=1)
def expected_losses(case: Case, batch: int, device: str) -> list[float]:
    """PyTorch's, eager, in float32."""
    problem = problem_of(case, batch)
    torch_.begin("float32")
    return losses_of(torch_.train(problem, Setting(device, "float32")), len(problem.x))


@lru_cache(maxsize=1)
def expected_gradients(case: Case, batch: int) -> dict[str, Any]:
    """gpunet's on a CPU, in float32: the loss and all gradients."""
    return gpunet_.gradients(problem_of(case, batch), Setting("cpu", "float32"), ROWS)


def check_losses(entrant: Entrant, expected: list[float], batches: int, tolerance: Tolerance) -> float:
    """-> the largest relative difference. Raises AssertionError if it is too large."""
    losses = losses_of(entrant, batches)
    np.testing.assert_allclose(losses[0], expected[0], rtol=tolerance.first)
    np.testing.assert_allclose(losses, expected, rtol=tolerance.later)
    return float(np.max(np.abs(np.array(losses) / expected - 1)))


def check_gradients(gradients: dict[str, Any], expected: dict[str, Any], tolerance: float) -> float:
    """-> the largest ‖a - b‖ / ‖b‖. Raises AssertionError if it is too large, or for NaN."""
    off = {}
    for name, b in expected.items():
        a = gradients[name].astype(np.float32)
        off[name] = float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-30))
    for name, value in off.items():
        assert value <= tolerance, f"'{name}' is off by {value:.1e} of its size, tolerance {tolerance:.0e}"
    return max(off.values())


def run_step(
    report: Report, name: str, batch: int, setting: Setting, contenders: list[str], ceilings: Ceilings, rounds: int
) -> None:
    """One row: contenders are made, checked, and timed in turns."""
    case = case_of(name, setting.device == "cpu")
    row: dict[str, Any] = {"kind": "step", "name": name, "batch": batch, "precision": setting.precision}
    row |= {"inputs": "host" if setting.host_inputs else "device", "optimizer": "adam", "losses_off": {}}
    expected = report.attempt(row, "reference", lambda: expected_losses(case, batch, setting.device))
    torch_.begin(setting.precision)
    entrants = {}
    for peer in contenders if expected else ():
        made = report.attempt(row, peer, lambda peer=peer: enter(row, peer, case, batch, setting, expected))
        if made:
            entrants[peer] = made.contender
    if "gpunet" in entrants:
        row["gradients_off"] = report.attempt(row, "gradients", lambda: gradients_off(case, batch, setting))
        if row["gradients_off"] is None:
            del entrants["gpunet"]
    least = report.race(row, entrants, rounds, len(problem_of(case, batch).x))
    if "compile" in least:
        row["skipped_graphs"] = torch_.skipped_graphs()
    if least:
        report.attempt(row, "floor", lambda: add_floor(row, case, batch, setting.precision, ceilings, least))
    report.add(row)


def enter(row: dict[str, Any], peer: str, case: Case, batch: int, setting: Setting, expected: list[float]) -> Entrant:
    """A contender that computes the right losses, ready to be timed. They are compared without dropout."""
    problem, train = problem_of(case, batch), CONTENDERS[peer]
    entrant = train(problem, setting)
    row["losses_off"][peer] = check_losses(entrant, expected, len(problem.x), TOLERANCES[setting.precision])
    if case.dropout:
        return train(replace(problem, learning_rate=TIMED_RATE, dropout=case.dropout), setting)
    entrant.set_learning_rate(TIMED_RATE)
    return entrant


def gradients_off(case: Case, batch: int, setting: Setting) -> float:
    """How far gpunet's gradients are from those that it computes on a CPU."""
    tolerance = TOLERANCES[setting.precision]
    limit = tolerance.kinked if case.hidden == "relu" else tolerance.smooth
    gradients = gpunet_.gradients(problem_of(case, batch), setting, ROWS)
    return check_gradients(gradients, expected_gradients(case, batch), limit)


def add_floor(
    row: dict[str, Any], case: Case, batch: int, precision: str, ceilings: Ceilings, least: dict[str, float]
) -> None:
    """What the step must do, and how near each comes to it. Bytes are counted for networks of Dense and ReLU only."""
    moves = case.hidden == "relu" and not case.dropout
    at_least = floor(case.widths, batch, precision, ceilings, moves)
    row["operations"] = operations(case.widths, batch)
    row["floor_us"] = {kind: seconds * 1e6 for kind, seconds in at_least.items()}
    row["percent_of_product_rate"] = {n: 100 * row["floor_us"]["operations"] / us for n, us in least.items()}
    if moves:
        row["bytes"] = fewest_bytes(case.widths, batch, precision)
        row["percent_of_floor"] = {n: 100 * row["floor_us"]["larger"] / us for n, us in least.items()}
