"""Who is faster: steps of several contenders, timed in turns in one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median, quantiles
from typing import Any, NamedTuple

TURN = 0.1  # seconds that are timed at once, about
MOST_CALLS = 1000
WARM_UP = 5  # steps at the start of a turn that are not timed
PAUSE = 0.05  # seconds; the BLAS and OpenMP threads of the contender before spin that long


class Contender(NamedTuple):
    """step  does the work for batch i; -> its result, a loss or an output of its own kind
    finish  waits until all of it is done
    """

    step: Callable[[int], Any]
    finish: Callable[[], Any] = lambda: None


Times = dict[str, list[float]]
"""Microseconds a step, one mean a round, by contender."""


def race(contenders: Mapping[str, Contender], rounds: int, batches: int = 20) -> Times:
    """All contenders in each round; who begins changes from round to round."""
    calls = {name: _calls(contender) for name, contender in contenders.items()}
    times: Times = {name: [] for name in contenders}
    names = list(contenders)
    for r in range(rounds):
        first = r % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(PAUSE)
            times[name].append(_turn(contenders[name], calls[name], batches))
    return times


def _calls(contender: Contender) -> int:
    """Steps that fill a turn; those before compile what first steps compile."""
    time.sleep(PAUSE)
    _timed(contender, 3, 1)
    seconds = min(_timed(contender, 1, 1) for _ in range(3))
    return max(2, min(MOST_CALLS, round(TURN / seconds)))


def _turn(contender: Contender, calls: int, batches: int) -> float:
    _timed(contender, min(WARM_UP, calls // 2), batches)
    return _timed(contender, calls, batches) / calls * 1e6


def _timed(contender: Contender, calls: int, batches: int) -> float:
    """Seconds for some steps and all the work that they began."""
    step = contender.step
    start = time.perf_counter()
    for i in range(calls):
        step(i % batches)
    contender.finish()
    return time.perf_counter() - start


def summary(times: Times, base: str = "gpunet") -> dict[str, Any]:
    """Times, and ratios contender / base, above 1 where base is faster.

    The ratio's quartiles are those of the rounds' ratios, each of two turns of one round.
    """
    us = {name: {"min": min(t), **_quartiles(t)} for name, t in times.items()}
    ratio = {}
    for name in times:
        if name != base:
            paired = [a / b for a, b in zip(times[name], times[base], strict=True)]
            of = {key: us[name][key] / us[base][key] for key in ("min", "median")}
            ratio[name] = _quartiles(paired) | of
    return {"microseconds": us, "ratio": ratio}


def _quartiles(values: list[float]) -> dict[str, float]:
    low, _, high = quantiles(values, n=4, method="inclusive")
    return {"q1": low, "median": median(values), "q3": high}


def show(label: str, result: dict[str, Any]) -> None:
    """Print a summary, one line a contender."""
    print(f"{label}: µs minimum (median), ratio to gpunet of minima (of medians) [quartiles of rounds]")
    for name, t in result["microseconds"].items():
        line = f"  {name:<10} {t['min']:10.1f} ({t['median']:.1f})"
        if name in result["ratio"]:
            r = result["ratio"][name]
            line = f"{line:<36}{r['min']:6.2f} ({r['median']:.2f}) [{r['q1']:.2f} to {r['q3']:.2f}]"
        print(line, flush=True)
