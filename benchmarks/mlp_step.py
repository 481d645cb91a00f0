"""One training step of a network: gpunet and its peers, one process, in turns.

python benchmarks/mlp_step.py [--case wide] [--optimizer sgd] [--peers hand torch] [--threads 1] [--json FILE]
python benchmarks/mlp_step.py --profile
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from environment import cores, parse, parser, write
from peers import PEERS, installed, train
from problems import CASES, Case, Problem, make_problem
from race import race, show, summary

TIMED_RATE = 1e-9  # weights stay as they are: moments of gradients that vanish become subnormal numbers, which are slow
ONCE = ("sklearn", "thinc")  # ten times slower: only when asked for
FIRST_TOLERANCE = 2e-6  # relative, of the loss of the initial weights


def losses_of(peer: str, problem: Problem, updates: int = 5) -> list[float]:
    """Losses before the first update, and after each."""
    step = train(peer, problem).step
    return [float(step(i)) for i in range(updates + 1)]


def check_agreement(problem: Problem, peers: Sequence[str]) -> None:
    """Raises AssertionError unless the peers compute the same as gpunet."""
    expected = losses_of("gpunet", problem)
    for peer in peers:
        losses = losses_of(peer, problem)
        np.testing.assert_allclose(losses[0], expected[0], rtol=FIRST_TOLERANCE, err_msg=peer)
        np.testing.assert_allclose(losses, expected, rtol=PEERS[peer].tolerance, err_msg=peer)


def compare(case: Case, batch: int, optimizer: Any, peers: list[str], rounds: int) -> dict[str, Any]:
    """One row of the table. Losses are compared without dropout, time is taken with it."""
    problem = make_problem(case, batch, optimizer)
    check_agreement(problem, peers)
    timed = replace(problem, learning_rate=TIMED_RATE, dropout=case.dropout)
    return summary(race({name: train(name, timed) for name in ["gpunet", *peers]}, rounds))


def default_peers(case: Case) -> list[str]:
    """Those that are installed and know the network; others are named."""
    known = [n for n, p in PEERS.items() if n not in ("gpunet", *ONCE) and not (p.relu_only and not is_plain(case))]
    there = [name for name in known if name in installed()]
    if missing := [name for name in known if name not in there]:
        print(f"not installed: {', '.join(missing)}")
    return there


def is_plain(case: Case) -> bool:
    return case.hidden == "relu" and not case.dropout


def main() -> None:
    options = parser("One training step, float32, on the CPU.")
    options.add_argument("--case", choices=list(CASES), default="mlp")
    options.add_argument("--optimizer", choices=["adam", "sgd"], default="adam")
    options.add_argument("--batch", type=int, nargs="+", help="default: those of the case")
    options.add_argument("--peers", choices=[n for n in PEERS if n != "gpunet"], nargs="+", help="default: installed")
    options.add_argument("--threads", type=int, default=cores(), help="of all peers; default: all cores")
    options.add_argument("--profile", action="store_true", help="show where gpunet's step at batch 8 spends its time")
    options = parse(options)
    case = CASES[options.case]
    if options.profile:
        from mlp_profile import profile

        profile(replace(make_problem(case, 8, options.optimizer), learning_rate=TIMED_RATE), options.rounds)
        return
    peers = options.peers or default_peers(case)
    rows = []
    for batch in options.batch or case.batches:
        about = {"case": options.case, "optimizer": options.optimizer, "batch": batch}
        rows.append(about | compare(case, batch, options.optimizer, peers, options.rounds))
        show(f"{options.case}, {options.optimizer}, batch {batch}, {options.threads} threads", rows[-1])
    write(options, rows)


if __name__ == "__main__":
    main()
