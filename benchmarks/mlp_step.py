"""One training step of an MLP 784-512-256-10: gpunet, plain NumPy by hand, PyTorch; one process, in turns.

python benchmarks/mlp_step.py [--optimizer sgd] [--threads 2] [--json results.json]
python benchmarks/mlp_step.py --profile
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

import gpunet
from gpunet.layers import Dense, ReLU, Sequential

WIDTHS = (784, 512, 256, 10)
LEARNING_RATE = {"adam": 1e-3, "sgd": 1e-2}
BATCHES = 20  # different ones, used in turn
BLOCK = 32768  # elements: four arrays and a scratch of them fit a 1 MB cache
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
TIMED_RATE = 1e-6  # hardly learns: moments of gradients that vanish would become slow subnormal numbers
PAUSE = 0.05  # seconds; the BLAS and OpenMP threads of the peer before spin that long

Step = Callable[[int], Any]
"""Trains on batch i; -> its loss."""


class Problem(NamedTuple):
    """Batches and initial arrays (W, b, W, b, ...) that all peers get."""

    x: list[Any]
    y: list[Any]
    initial: list[Any]


def make_problem(batch: int) -> Problem:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((BATCHES, batch, WIDTHS[0]), dtype=np.float32)
    y = rng.integers(0, WIDTHS[-1], (BATCHES, batch))
    initial = []
    for i, o in pairwise(WIDTHS):
        initial += [rng.standard_normal((i, o), dtype=np.float32) * np.float32(math.sqrt(2 / i))]
        initial += [np.zeros(o, np.float32)]
    return Problem(list(x), list(y), initial)


def gpunet_step(problem: Problem, optimizer: str, lr: float) -> Step:
    model = Sequential(Dense(WIDTHS[1]), ReLU(), Dense(WIDTHS[2]), ReLU(), Dense(WIDTHS[3]))
    model.build((WIDTHS[0],), device="cpu")
    model.set_weights(dict(zip(model.get_weights(), problem.initial, strict=True)))
    rule = gpunet.optim.Adam(lr, beta1=BETA1, beta2=BETA2, eps=EPS) if optimizer == "adam" else gpunet.optim.SGD(lr)
    step = gpunet.TrainStep(model, gpunet.losses.CrossEntropy(), rule)
    labels = [y.astype(np.int32) for y in problem.y]  # each peer gets the type it computes with
    return lambda i: step(problem.x[i], labels[i])


class NumpyStep:
    """The same network by hand: flat parameters, everything allocated beforehand, no dx for the first layer."""

    def __init__(self, problem: Problem, optimizer: str, lr: float):
        self.problem, self.lr, self.t = problem, lr, 0
        self.update = self.adam if optimizer == "adam" else self.sgd
        self.p = np.concatenate([a.ravel() for a in problem.initial])
        self.g, self.m, self.v = (np.zeros_like(self.p) for _ in range(3))
        shapes = [a.shape for a in problem.initial]
        ends = np.cumsum([math.prod(s) for s in shapes])[:-1]
        flat = (np.split(self.p, ends), np.split(self.g, ends))
        values, grads = ([a.reshape(s) for a, s in zip(parts, shapes, strict=True)] for parts in flat)
        self.W, self.b, self.dW, self.db = values[0::2], values[1::2], grads[0::2], grads[1::2]
        n = len(problem.y[0])
        self.h, self.d, self.zero = ([np.zeros((n, k), np.float32) for k in WIDTHS[1:]] for _ in range(3))
        self.mask = [np.zeros((n, k), bool) for k in WIDTHS[1:]]
        self.n, self.ones, self.rows = n, np.ones(n, np.float32), np.arange(n)
        scratch = np.empty(BLOCK, np.float32)
        cuts = [slice(i, i + BLOCK) for i in range(0, self.p.size, BLOCK)]
        self.blocks = [(self.p[c], self.g[c], self.m[c], self.v[c], scratch[: self.p[c].size]) for c in cuts]

    def __call__(self, i: int) -> Any:
        x, y, last = self.problem.x[i], self.problem.y[i], len(self.W) - 1
        inputs = [x, *self.h[:-1]]
        for k in range(last + 1):
            h = np.matmul(inputs[k], self.W[k], out=self.h[k])
            np.add(h, self.b[k], out=h)
            if k < last:
                np.maximum(h, self.zero[k], out=h)  # an array of zeros: 3x the scalar 0 at (128, 512)
        z, d = self.h[last], self.d[last]
        np.subtract(z, np.maximum.reduce(z, axis=1, keepdims=True), out=z)
        s = np.add.reduce(np.exp(z, out=d), axis=1, keepdims=True)
        loss = (np.add.reduce(np.log(s), axis=None) - np.add.reduce(z[self.rows, y])) / self.n
        np.multiply(d, (1 / self.n) / s, out=d)
        d[self.rows, y] -= 1 / self.n
        for k in range(last, -1, -1):
            d = self.d[k]
            np.matmul(inputs[k].T, d, out=self.dW[k])
            np.matmul(self.ones, d, out=self.db[k])  # 2x a sum over rows
            if k > 0:
                np.matmul(d, self.W[k].T, out=self.d[k - 1])
                np.greater(self.h[k - 1], 0, out=self.mask[k - 1])
                np.multiply(self.d[k - 1], self.mask[k - 1], out=self.d[k - 1])
        self.update()
        return loss

    def adam(self) -> None:
        """The usual moments, as gpunet and PyTorch keep them; the corrections are two scalars: 12 passes."""
        self.t += 1
        k = math.sqrt(1 - BETA2**self.t)
        eps, lr = EPS * k, self.lr * k / (1 - BETA1**self.t)
        for p, g, m, v, s in self.blocks:
            np.multiply(m, BETA1, out=m)
            np.multiply(g, 1 - BETA1, out=s)
            np.add(m, s, out=m)
            np.multiply(v, BETA2, out=v)
            np.multiply(g, g, out=s)
            np.multiply(s, 1 - BETA2, out=s)
            np.add(v, s, out=v)
            np.sqrt(v, out=s)
            np.add(s, eps, out=s)
            np.divide(m, s, out=s)
            np.multiply(s, lr, out=s)
            np.subtract(p, s, out=p)

    def sgd(self) -> None:
        for p, g, _, _, s in self.blocks:
            np.multiply(g, self.lr, out=s)
            np.subtract(p, s, out=p)


def torch_step(problem: Problem, optimizer: str, lr: float) -> Step:
    """Eager, with the optimizer's fused kernel."""
    import torch

    layers = [torch.nn.Linear(i, o) for i, o in pairwise(WIDTHS)]
    model = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1], torch.nn.ReLU(), layers[2])
    with torch.no_grad():
        for p, a in zip(model.parameters(), problem.initial, strict=True):
            p.copy_(torch.from_numpy(a.T))  # (O, I)
    kinds = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    options = {"betas": (BETA1, BETA2), "eps": EPS} if optimizer == "adam" else {}
    rule = kinds[optimizer](model.parameters(), lr=lr, fused=True, **options)
    xs, ys = [torch.from_numpy(x) for x in problem.x], [torch.from_numpy(y) for y in problem.y]

    def step(i: int) -> Any:
        loss = torch.nn.functional.cross_entropy(model(xs[i]), ys[i])
        rule.zero_grad(set_to_none=True)
        loss.backward()
        rule.step()
        return loss.detach()

    return step


PEERS: dict[str, Callable[[Problem, str, float], Step]] = {
    "gpunet": gpunet_step,
    "numpy": NumpyStep,
    "torch": torch_step,
}


def losses_of(peer: str, problem: Problem, optimizer: str, updates: int = 5) -> list[float]:
    """Losses before the first update, and after each."""
    step = PEERS[peer](problem, optimizer, LEARNING_RATE[optimizer])
    return [float(step(i)) for i in range(updates + 1)]


def check_agreement(problem: Problem, optimizer: str, peers: list[str], tolerance: float = 1e-4) -> None:
    """Raises AssertionError unless the peers compute the same."""
    expected = losses_of("gpunet", problem, optimizer)
    for peer in peers:
        np.testing.assert_allclose(losses_of(peer, problem, optimizer), expected, rtol=tolerance, err_msg=peer)


def race(steps: dict[str, Step], rounds: int, calls: int) -> dict[str, list[float]]:
    """Microseconds a step of each peer, one mean a round; who begins changes from round to round."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for r in range(rounds):
        names = list(steps)
        first = r % len(names)
        for name in names[first:] + names[:first]:
            step = steps[name]
            time.sleep(PAUSE)
            for i in range(5):
                step(i)
            start = time.perf_counter()
            for i in range(calls):
                step(i % BATCHES)
            times[name].append((time.perf_counter() - start) / calls * 1e6)
    return times


def compare(batch: int, optimizer: str, peers: list[str], rounds: int) -> dict[str, Any]:
    """One row of the table."""
    problem = make_problem(batch)
    check_agreement(problem, optimizer, peers)
    steps = {name: PEERS[name](problem, optimizer, TIMED_RATE) for name in peers}
    times = race(steps, rounds, calls=max(10, 800 // batch))
    us = {name: {"min": min(t), "median": median(t)} for name, t in times.items()}
    ratio = {n: {k: us[n][k] / us["gpunet"][k] for k in ("min", "median")} for n in peers if n != "gpunet"}
    return {"batch": batch, "microseconds": us, "ratio": ratio}


def show(row: dict[str, Any]) -> None:
    us = "".join(f"{name} {t['min']:7.0f} ({t['median']:.0f})  " for name, t in row["microseconds"].items())
    ratios = "".join(f"  {name}/gpunet {r['min']:.2f} ({r['median']:.2f})" for name, r in row["ratio"].items())
    print(f"batch {row['batch']:4d}   {us}{ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="One training step of an MLP 784-512-256-10, float32, on the CPU.")
    parser.add_argument("--optimizer", choices=sorted(LEARNING_RATE), default="adam")
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32, 128, 512])
    parser.add_argument("--peers", choices=["numpy", "torch"], nargs="+", default=["numpy", "torch"])
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of BLAS and PyTorch; default: all cores")
    parser.add_argument("--rounds", type=int, default=15, help="at least 9")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--profile", action="store_true", help="show where gpunet's step at batch 8 spends its time")
    options = parser.parse_args()
    if options.rounds < 9 or options.threads < 1:
        parser.error("--rounds must be at least 9 and --threads at least 1")
    from environment import environment, pin_threads

    pin_threads(options.threads)
    if options.profile:
        from mlp_profile import profile

        profile(lambda: gpunet_step(make_problem(8), options.optimizer, TIMED_RATE))
        return
    if "torch" in options.peers:
        import torch

        torch.set_num_threads(options.threads)
    about = environment(options.threads) | {"optimizer": options.optimizer, "rounds": options.rounds}
    print(f"{options.optimizer}, float32, {options.threads} threads; {about['versions']}; {about['machine']['cpu']}")
    print("microseconds a step and peer/gpunet: minimum (median)")
    rows = []
    for batch in options.batch:
        rows.append(compare(batch, options.optimizer, ["gpunet", *options.peers], options.rounds))
        show(rows[-1])
    if options.json:
        options.json.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
