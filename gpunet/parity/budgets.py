"""Error budgets: how far results of a device may lie from those of float64.

Rounding is judged by what it does, not by a fixed tolerance: a result may be as far off as it would be if each number
that goes into it was rounded a few times. So the same computation is run in float64 with its inputs changed at random
by that much, and the largest change of the result is what is allowed. What is lost inside, where numbers cancel or
underflow, inputs cannot show: the same number of times what float32 loses on the reference device is allowed, too.
So sums that cancel, ill-conditioned normalisations and layers that nobody foresaw get what belongs to them, and a wrong
formula does not.

Reference: Higham: Accuracy and Stability of Numerical Algorithms (2002), on backward errors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from gpunet.backend import Shape, host
from gpunet.formula import dtype_kind

EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "tf32": 2.0**-10, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Distance from 1 to the next number of each precision; tf32 is that of products with float32 sums."""
MAP, SUM = 6.0, 0.5
"""Roundings of an element: those of a formula, and for each square root of the number of terms that a sum can have.

benchmarks/error_budgets.py shows what layers need of them."""
STORED = 4.0
"""Roundings of a layer's results to half precision, in which it stores them; its sums are float32."""
LOST = 2.0
"""Times what float32 loses inside: few draws may miss the largest."""
DRAWS, SINGLE_DRAWS = 6, 3
Arrays = dict[str, Any]
Compute: TypeAlias = Callable[[Arrays], Arrays]
"""From inputs to results, host arrays by name."""
Size: TypeAlias = float | Callable[[str], float]


def roundings(terms: int) -> float:
    """How many roundings of each number that goes in, for sums of so many terms: errors of a sum grow as √terms."""
    return MAP + SUM * math.sqrt(terms)


def terms(x: Shape, y: Shape) -> int:
    """The longest sum of a layer from x to y, both with the batch axis: over a sample's numbers, or over all rows."""
    return max(math.prod(s) for shape in (x, y) for s in (shape[1:], shape[:-1], shape[:1]))


def allowed(
    compute: Compute,
    inputs: Mapping[str, Any],
    size: Size,
    *,
    single: Compute | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> tuple[Arrays, dict[str, float]]:
    """(the results, for each the largest error that is allowed), both in float64.

    size    how much floats among the inputs are changed, relative to themselves: roundings times eps; of results, it
            is the least that is allowed. A number, or one for each name
    single  the same computation in float32 on the reference device; None: nothing inside can be lost
    """
    xp = host().xp
    of = size if callable(size) else lambda name: size
    results = {name: xp.asarray(a) for name, a in compute(dict(inputs)).items()}
    limits = {name: of(name) * largest(a) for name, a in results.items()}
    for draw in range(draws):
        changed = compute({name: _changed(a, of(name), seed, f"{name} {draw}") for name, a in inputs.items()})
        with host().scope():
            for name, a in results.items():
                limits[name] = max(limits[name], largest(changed[name] - a))
    if single is not None:
        for name, error in lost(compute, single, inputs, seed=seed, draws=min(draws, SINGLE_DRAWS)).items():
            limits[name] = max(limits[name], LOST * of(name) * error)
    return results, limits


def lost(
    compute: Compute, single: Compute, inputs: Mapping[str, Any], *, seed: int = 0, draws: int = SINGLE_DRAWS
) -> dict[str, float]:
    """The largest error of float32 for each result, in eps of float32; infinite where only one of both overflows."""
    xp = host().xp
    found: dict[str, float] = {}
    for draw in range(draws):
        given = {n: _changed(a, draw * EPS["float32"], seed, f"single {n} {draw}") for n, a in inputs.items()}
        narrow = {n: _in_single(a) for n, a in given.items()}
        exact, rounded = compute({n: _changed(a, 0.0, seed, n) for n, a in narrow.items()}), single(narrow)
        for name, a in exact.items():
            error = distance(xp.asarray(rounded[name]), a) / EPS["float32"]
            found[name] = max(found.get(name, 0.0), error)
    return found


def largest(a: Any) -> float:
    """The largest magnitude among the finite elements; 0 if there are none."""
    xp = host().xp
    a = xp.abs(xp.asarray(a, dtype=xp.float64))
    return float(xp.max(a, initial=0.0, where=xp.isfinite(a)))


def distance(a: Any, b: Any) -> float:
    """The largest |a - b|; infinite where one is NaN or infinite and the other is something else."""
    xp = host().xp
    a, b = (xp.asarray(one, dtype=xp.float64) for one in (a, b))
    if a.shape != b.shape:
        return math.inf
    alike = (a == b) | (xp.isnan(a) & xp.isnan(b)) | (xp.isfinite(a) & xp.isfinite(b))
    with host().scope():
        return largest(a - b) if bool(xp.all(alike)) else math.inf


def _changed(array: Any, size: float, seed: int, key: str) -> Any:
    """Each element times 1 ± size at most, in float64; integers and truth values as they are."""
    if dtype_kind(array.dtype) != "float":
        return array
    xp = host().xp
    wide = xp.astype(array, xp.float64)
    return wide * (1 + size * (2 * host().uniform(seed, f"budget {key}", array.shape) - 1)) if size else wide


def _in_single(array: Any) -> Any:
    return host().asarray(array, "float32") if dtype_kind(array.dtype) == "float" else array
