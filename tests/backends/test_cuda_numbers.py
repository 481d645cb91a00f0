"""What numbers a GPU gives: functions to a few ulp, subnormal numbers too; random bits; the same bits every time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from kit import EPS, beside, error

from gpunet.formula import erf, random_bits, sigmoid, total
from gpunet.random import threefry
from gpunet_backends.numpy_ import NumpyBackend

gpus = beside(__file__, "gpus.py")
library, either, fetch, put = gpus.library, gpus.either, gpus.fetch, gpus.put


# Functions

ROUNDED = {
    **dict.fromkeys(["cos", "exp", "expm1", "log", "log1p", "sin", "tanh", "erf"], 2),
    **dict.fromkeys(["sigmoid", "pow"], 4),
}
"""Most ulp from the exact value. NVIDIA's table says 2 at most, 4 for powf; our sigmoid divides by 1 + exp."""
EXACT = ("abs", "ceil", "floor", "negative", "sign", "sqrt", "square", "isfinite", "isinf", "isnan")
EXACT_PAIRS = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "greater", "equal")


def rounded(xp, x):
    functions = [getattr(xp, name) for name in list(ROUNDED)[:7]]
    return (*(f(x) for f in functions), erf(x), sigmoid(x))


def exact(xp, x):
    return tuple(getattr(xp, name)(x) for name in EXACT)


def exact_pairs(xp, x, y):
    return tuple(getattr(xp, name)(x, y) for name in EXACT_PAIRS)


def powers(xp, x, y):
    return xp.pow(x, y)


def numbers(dtype: str) -> np.ndarray:
    """All magnitudes and both signs, zeros, infinities, NaN, and the edges; a multiple of 8."""
    info, rng = np.finfo(dtype), np.random.default_rng(3)
    exponents = rng.uniform(info.minexp - info.nmant, info.maxexp, 2000)
    spread = np.concatenate(
        [np.ldexp(1 + rng.random(2000), np.floor(exponents).astype(int)), rng.standard_normal(1000)]
    )
    edges = [0, 1, math.log(float(info.max)), math.log(float(info.tiny)), 1e-40, 3e-39, 1e-310, 88.5, 104.5]
    edges += [info.max, info.tiny, info.smallest_subnormal, np.inf, np.nan, 10, 0.5]
    x = np.concatenate([spread, edges])
    with np.errstate(over="ignore"):
        return np.concatenate([x, -x]).astype(dtype).reshape(-1, 8)


def exactly(name: str, *args: np.ndarray) -> np.ndarray:
    """In more digits than float64 has, where the platform offers them."""
    wide = [a.astype(np.longdouble) for a in args]
    if name == "sigmoid":
        e = np.exp(-abs(wide[0]))
        return np.where(wide[0] < 0, e, 1) / (1 + e)
    if name == "erf":
        return np.vectorize(math.erf, otypes=[np.float64])(args[0]).astype(np.longdouble)
    return getattr(np, name)(*wide)


def assert_near(name: str, result: np.ndarray, *args: np.ndarray) -> None:
    """A result that is flushed to zero is thousands of ulp away: subnormal numbers are kept."""
    with np.errstate(all="ignore"):
        wanted = exactly(name, *args)
        nearest = wanted.astype(result.dtype)
        limit = (ROUNDED[name] + (result.dtype == np.float64)) * np.spacing(abs(nearest)).astype(np.longdouble)
        alike = (abs(result - wanted) <= limit) | (result == nearest) | (np.isnan(result) & np.isnan(nearest))
        largest = np.finfo(result.dtype).max  # one rounds to infinity, the other to the number before
        alike |= np.isinf(nearest) & (result == np.copysign(largest, nearest)) & np.isfinite(wanted)
    bad = ~alike
    assert not bad.any(), f"{name} of {[a[bad][:8] for a in args]} is {result[bad][:8]}, not {nearest[bad][:8]}"


@pytest.mark.parametrize("dtype", EPS)
def test_functions_are_within_a_few_ulp(dtype, either):
    x = numbers(dtype)
    for name, y in zip(ROUNDED, either.fuse(rounded)(put(either, x)), strict=False):
        assert_near(name, fetch(either, y), x)


@pytest.mark.parametrize("dtype", EPS)
def test_powers_are_within_a_few_ulp(dtype, either):
    x = abs(numbers(dtype))
    for exponent in (0.5, -1.0, 2.0, 3.0, -2.5, 0.0):
        y = np.full_like(x, exponent)
        assert_near("pow", fetch(either, either.fuse(powers)(put(either, x), put(either, y))), x, y)


@pytest.mark.parametrize("dtype", EPS)
def test_arithmetic_is_exact(dtype, either):
    """Correctly rounded, as IEEE 754 says; division and square root, and subnormal numbers, too."""
    x = numbers(dtype)
    pairs = [(x, np.roll(x, 8 * n).copy()) for n in (1, 5, 77)]
    with np.errstate(all="ignore"):
        found = [(EXACT, either.fuse(exact)(put(either, x)), exact(np, x))]
        found += [
            (EXACT_PAIRS, either.fuse(exact_pairs)(*(put(either, a) for a in p)), exact_pairs(np, *p)) for p in pairs
        ]
    for names, results, wanted in found:
        for name, y, expected in zip(names, results, wanted, strict=True):
            np.testing.assert_array_equal(fetch(either, y), expected, err_msg=name)


# Random bits


def different(xp, x, expected, seed, draw, step):
    """How many of the random bits are not what is expected: all 32 are compared."""
    return total(xp.where(random_bits(x, seed, draw, step) == expected, 0.0, 1.0))


def bits_of(count: int, seed: int, draw: int, step: int) -> np.ndarray:
    """Threefry in uint32."""
    word = np.uint32

    def rotate(a, bits):
        return (a << word(bits)) | (a >> word(32 - bits))

    blocks = []
    with np.errstate(over="ignore"):
        for start in range(0, count, 1 << 16):
            elements = np.arange(start, min(count, start + (1 << 16)), dtype=word)
            counter = elements, np.full_like(elements, step)
            blocks.append(threefry((word(seed), word(draw)), counter, np.add, rotate)[0])
    return np.concatenate(blocks)


@pytest.mark.parametrize("key", [(0, 0, 0), (2**32 - 1, 3, 2**31)])
def test_random_bits_are_those_of_the_cpu(key, either):
    """More elements than float32 counts."""
    side = 4097 if gpus.is_real(either) else 67
    expected = bits_of(side * side, *key).astype(np.int64).reshape(side, side)
    np.testing.assert_array_equal(expected[0, :5], random_bits(np.zeros((1, 5), np.float32), *map(np.int64, key))[0])
    operands = either.zeros((side, side), "float32"), put(either, expected), *(either.scalar(k, "int64") for k in key)
    assert float(either.fuse(different)(*operands)) == 0
    expected[-1, -1] ^= 1
    assert float(either.fuse(different)(operands[0], put(either, expected), *operands[2:])) == 1


# Races: a kernel whose threads do not wait for each other seldom gives the same bits fifty times

RACES = {
    "CrossEntropy": (130, 4100),
    "layernorm_backward": (1300, 1030),
    "masked_softmax": (70, 1101),
    "batchnorm_variance": (40_000, 70),
    "Bias+ReLU'": (5000, 260),
    "MeanSquaredError": (2100, 1030),
    "clip: square sum": (2100, 1031),
    "lstm_gates": (2100, 1030),
}
"""Rows for 256 threads, sums over more bands and blocks than there are at most."""


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", RACES)
def test_fifty_runs_give_the_same_bits(name, dtype, either):
    """One after another, and on four streams at once."""
    case, (rows, k), real = library.CASES[name], RACES[name], gpus.is_real(either)
    host = library.operands(case, dtype, (rows if real else 5, k if real else 300), 0, 0.0, [library.aligned])
    operands, fused = [put(either, x) for x in host], either.fuse(case.formula)
    expected = [fetch(either, y) for y in library.as_tuple(fused(*operands))]
    plain = NumpyBackend().fuse(case.formula)
    numpys, limits = library.as_tuple(plain(*host)), gpus.budgets(plain.graph(host), host, dtype)
    for result, wanted, (budget, _) in zip(expected, numpys, limits, strict=True):
        assert np.all(abs(result - wanted) <= budget), f"off by {error(result, wanted)}"
    either.synchronize()
    streams = [gpus.stream_of(either) for _ in range(4)]
    for run in range(10 if real else 2):
        results = [library.as_tuple(fused(*operands))]
        for stream in streams:
            with either.scope(), stream:
                results.append(library.as_tuple(fused(*operands)))
        either.synchronize()
        for outputs in results:
            for y, wanted in zip(outputs, expected, strict=True):
                assert fetch(either, y).tobytes() == wanted.tobytes(), f"round {run}"
