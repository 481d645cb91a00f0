"""Where gpunet's step spends its time: ``python benchmarks/mlp_step.py --profile``."""

from __future__ import annotations

import cProfile
import pstats
from pathlib import Path
from statistics import median
from typing import Any

from peers import installed, train
from problems import Problem
from race import race

TOP = 20


def overhead(problem: Problem, rounds: int) -> tuple[float, float]:
    """gpunet's step minus the step written by hand: microseconds, of the minima and the median of rounds."""
    times = race({name: train(name, problem) for name in ("gpunet", "hand")}, rounds)
    ours, hand = times["gpunet"], times["hand"]
    return min(ours) - min(hand), median(a - b for a, b in zip(ours, hand, strict=True))


def profile(problem: Problem, rounds: int, calls: int = 2000) -> None:
    """Print the overhead, then functions by own time under cProfile, which makes Python look slower than it is."""
    if "hand" in installed():
        least, middle = overhead(problem, rounds)
        print(f"gpunet's step beyond the one written by hand: {least:.0f} µs of minima ({middle:.0f} median of rounds)")
    step = train("gpunet", problem).step
    for i in range(20):
        step(i)
    profiler = cProfile.Profile()
    profiler.enable()
    for i in range(calls):
        step(i % 20)
    profiler.disable()
    stats: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    print(f"{'µs/step':>8} {'calls':>6}   own time, of {total / calls * 1e6:.0f} µs under the profiler")
    for (file, line, name), (_, n, own, _, _) in sorted(stats.items(), key=lambda item: -item[1][2])[:TOP]:
        where = f"{Path(file).parent.name}/{Path(file).name}:{line}" if file[0] not in "~<" else file
        print(f"{own / calls * 1e6:8.1f} {n / calls:6.0f}   {where} {name}")
