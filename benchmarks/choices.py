"""What was measured to choose it, in the CPU backend: python benchmarks/choices.py [--threads 1]

products  the backend's matrix products beside numpy.matmul and numpy.dot
update    Adam on flat arrays, as one call and as two halves on two threads
threads   a step with dropout, whose kernels are split over threads, or never, beside the default
"""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
from environment import cores, parse, parser, write
from mlp_step import TIMED_RATE
from peers import gpunet_
from problems import CASES, make_problem
from race import Contender, race, show, summary

from gpunet.optim import Adam
from gpunet_backends import blocks
from gpunet_backends.numpy_ import NumpyBackend
from gpunet_backends.threads import run_parts

PRODUCTS = [(rows, 512, 256) for rows in (8, 32, 128)] + [(8, 784, 512), (32, 64, 64)]
PARAMETERS = (535_872, 25_175_040)  # of the networks ``mlp`` and ``wide``
BATCHES = (32, 512, 4096)  # of the network ``digits``
SPLIT = {"gpunet": None, "always": 1, "never": 1 << 60}
"""Values of PARALLEL_FROM."""


def products(rows: int, inputs: int, units: int) -> dict[str, dict[str, Contender]]:
    """dx = dy Wᵀ and dW = xᵀ dy."""
    rng, backend = np.random.default_rng(0), NumpyBackend()
    x, dy, w = (rng.standard_normal(s, dtype=np.float32) for s in ((rows, inputs), (rows, units), (inputs, units)))
    dw = np.empty_like(w)
    with backend.scope():
        np.testing.assert_allclose(backend.gemm(dy, w, transpose_b=True), dy @ w.T, rtol=1e-3, atol=1e-3)
    return {
        "dx": {
            "gpunet": Contender(lambda i: backend.gemm(dy, w, transpose_b=True)),
            "matmul": Contender(lambda i: np.matmul(dy, w.T)),
            "dot": Contender(lambda i: np.dot(dy, w.T)),
        },
        "dW": {
            "gpunet": Contender(lambda i: backend.gemm(x, dy, transpose_a=True, out=dw)),
            "matmul": Contender(lambda i: np.matmul(x.T, dy, dw)),
            "dot": Contender(lambda i: np.dot(x.T, dy, dw)),
        },
    }


def updates(elements: int) -> dict[str, Contender]:
    """The update alone: no matrix product leaves threads behind that wait actively."""
    backend = NumpyBackend(jit=True)
    fused, lr, t = backend.fuse(Adam().formula), backend.scalar(TIMED_RATE, "float32"), backend.scalar(5, "float32")
    arrays = [backend.zeros((elements,), "float32") + 1 for _ in range(4)]
    half = elements // 2

    def update(first: int, last: int) -> None:
        p, g, m, v = (a[first:last] for a in arrays)
        fused(p, g, m, v, lr, t, out=(p, m, v))

    return {
        "gpunet": Contender(lambda i: update(0, elements)),
        "halves": Contender(lambda i: run_parts(update, (), [(0, half), (half, elements)])),
    }


def steps(batch: int) -> dict[str, Contender]:
    """The same step with other thresholds. They are read when a signature is met first: here, by the first step."""
    case, made = CASES["digits"], {}
    problem = replace(make_problem(case, batch), learning_rate=TIMED_RATE, dropout=case.dropout)
    for name, threshold in SPLIT.items():
        with patch.object(blocks, "PARALLEL_FROM", threshold or blocks.PARALLEL_FROM):
            made[name] = gpunet_.train(problem, NumpyBackend(jit=True))
            made[name].step(0)
    return made


def main() -> None:
    options = parser("Choices of the CPU backend.")
    options.add_argument("--threads", type=int, default=cores(), help="of BLAS and kernels; default: all cores")
    options = parse(options)
    rows = []
    for shape in PRODUCTS:
        for name, contenders in products(*shape).items():
            rows.append({"choice": f"{name} at {shape}"} | summary(race(contenders, options.rounds)))
            show(f"{name}, (rows, inputs, units) = {shape}, {options.threads} threads", rows[-1])
    for elements in PARAMETERS if options.threads > 1 else ():
        rows.append({"choice": f"Adam, {elements:,} parameters"} | summary(race(updates(elements), options.rounds)))
        show(f"Adam, {elements:,} parameters, {options.threads} threads", rows[-1])
    for batch in BATCHES:
        rows.append({"choice": f"digits with dropout, batch {batch}"} | summary(race(steps(batch), options.rounds)))
        show(f"digits, batch {batch}, {options.threads} threads, kernels split", rows[-1])
    write(options, rows)


if __name__ == "__main__":
    main()
