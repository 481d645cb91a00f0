"""The outputs of an MLP 784-512-256-10 for one sample and for 256: python benchmarks/inference.py"""

from __future__ import annotations

from typing import Any

import numpy as np
from environment import cores, parse, parser, write
from peers import PEERS, gpunet_, infer, installed
from problems import CASES, make_problem
from race import Contender, race, show, summary

PEERS_HERE = [name for name in PEERS if name not in ("gpunet", "sklearn", "thinc")]
TOLERANCE = 1e-4  # relative to the largest output


def check_agreement(contenders: dict[str, Contender]) -> None:
    """Raises AssertionError unless all give gpunet's outputs."""
    for i in range(2):
        expected = np.array(contenders["gpunet"].step(i))
        for name, contender in contenders.items():
            error = np.abs(np.asarray(contender.step(i)) - expected).max() / np.abs(expected).max()
            assert error <= TOLERANCE, f"{name}: outputs are off by {error:.1e}"


def compare(batch: int, peers: list[str], rounds: int) -> dict[str, Any]:
    problem = make_problem(CASES["mlp"], batch)
    contenders = {"gpunet": infer("gpunet", problem), "predict": gpunet_.predict(problem)}
    contenders |= {name: infer(name, problem) for name in peers}
    check_agreement(contenders)
    return summary(race(contenders, rounds))


def main() -> None:
    options = parser("Inference, float32, on the CPU.")
    options.add_argument("--batch", type=int, nargs="+", default=[1, 256])
    options.add_argument("--threads", type=int, default=cores(), help="of all peers; default: all cores")
    options = parse(options)
    peers, rows = [name for name in PEERS_HERE if name in installed()], []
    for batch in options.batch:
        rows.append({"batch": batch} | compare(batch, peers, options.rounds))
        show(f"inference, batch {batch}, {options.threads} threads", rows[-1])
    write(options, rows)


if __name__ == "__main__":
    main()
