"""Where gpunet's step spends its time: ``python benchmarks/mlp_step.py --profile``."""

from __future__ import annotations

import cProfile
import pstats
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from gpunet_backends import numpy_

Step = Callable[[int], Any]
Call = tuple[Callable[..., Any], tuple[Any, ...]]
TOP = 15


def record(make: Callable[[], Step]) -> list[Call]:
    """The matrix products and formula bodies of one step, with the arrays that they ran on."""
    calls: list[Call] = []
    compile_source, gemm = numpy_.compile_source, numpy_.NumpyBackend.gemm

    def compiled(*source: Any) -> Callable[..., Any]:
        body = compile_source(*source)

        def recorded(*arguments: Any) -> Any:
            calls.append((body, arguments))
            return body(*arguments)

        return recorded

    def product(
        backend: Any, a: Any, b: Any, *, transpose_a: bool = False, transpose_b: bool = False, **to: Any
    ) -> Any:
        y = gemm(backend, a, b, transpose_a=transpose_a, transpose_b=transpose_b, **to)
        calls.append((np.matmul, (a.T if transpose_a else a, b.T if transpose_b else b, y)))
        return y

    with mock.patch.object(numpy_, "compile_source", compiled), mock.patch.object(numpy_.NumpyBackend, "gemm", product):
        step = make()
        step(0)
        calls.clear()
        step(0)
    return calls


def overhead(make: Callable[[], Step], rounds: int = 15, calls: int = 100) -> tuple[float, float, int]:
    """Microseconds of a step, and of its NumPy calls alone on memory that exists already, minima; their number.

    Those calls come from a second model of the same kind. Both run in turns, always on batch 0.
    """
    tape = record(make)
    step = make()

    def replay(_: int) -> None:
        with np.errstate(all="ignore"):
            for function, arguments in tape:
                function(*arguments)

    times: dict[Step, list[float]] = {step: [], replay: []}
    for _ in range(rounds):
        for run, taken in times.items():
            for _ in range(5):
                run(0)
            start = time.perf_counter()
            for _ in range(calls):
                run(0)
            taken.append((time.perf_counter() - start) / calls * 1e6)
    return min(times[step]), min(times[replay]), len(tape)


def is_numpy(file: str, function: str) -> bool:
    """Is it NumPy's compiled code? Ufuncs are not seen by the profiler: their time is that of the formula's body."""
    return file.startswith("<formula") or function == "gemm" or (file == "~" and "numpy" in function)


def profile(make: Callable[[], Step], calls: int = 2000) -> None:
    """Print the overhead measured directly, then shares and functions under cProfile."""
    whole, numpy_alone, count = overhead(make)
    print(f"a step {whole:.0f} us, its {count} products and formulas alone {numpy_alone:.0f} us: ", end="")
    print(f"overhead {whole - numpy_alone:.0f} us, {(whole - numpy_alone) / whole:.0%} of the step")
    step = make()
    for i in range(20):
        step(i)
    profiler = cProfile.Profile()
    profiler.enable()
    for i in range(calls):
        step(i % 20)
    profiler.disable()
    stats: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    inside = sum(own for (file, _, name), (_, _, own, _, _) in stats.items() if is_numpy(file, name))
    print(
        f"under cProfile, which makes Python look slower: NumPy {inside / total:.0%}, Python {1 - inside / total:.0%}"
    )
    print(f"{'us/step':>8} {'calls':>6}   own time, of {total / calls * 1e6:.0f} us under the profiler")
    rows = sorted(stats.items(), key=lambda item: -item[1][2])
    for (file, line, name), (_, n, own, _, _) in rows[:TOP]:
        where = f"{Path(file).parent.name}/{Path(file).name}:{line}" if file[0] not in "~<" else file
        kind = "numpy " if is_numpy(file, name) else "python"
        print(f"{own / calls * 1e6:8.1f} {n / calls:6.0f}   {kind} {where} {name}")
