"""The scalar functions of the Numba kernels: accuracy over all of float32, special values, and that they vectorise."""

from __future__ import annotations

import math
import platform
import re
from functools import cache

import numpy as np
import pytest

numba = pytest.importorskip("numba", reason="numba is not installed: pip install 'gpunet[jit]'")

from gpunet.random import threefry  # noqa: E402
from gpunet_backends import numba_math  # noqa: E402

INF, NAN = math.inf, math.nan
ONES = 0xFFFFFFFF
KERNEL = {"fastmath": {"nsz", "contract"}, "error_model": "numpy", "nogil": True}
BOUND = {"exp": 2, "expm1": 2, "log": 2, "log1p": 2, "tanh": 2, "sigmoid": 4, "erf": 4}
WIDTH = {"float32": np.int32, "float64": np.int64}
TINY = float(np.float32(1e-45))


@cache
def mapped(name):
    """A kernel that applies one function to each element, as generated ones do."""
    function = getattr(numba_math, name)

    def one(x, out):
        for i in range(x.size):
            out[i] = function(x[i])

    def two(x, y, out):
        for i in range(x.size):
            out[i] = function(x[i], y[i])

    return numba.njit(**KERNEL)(two if function.py_func.__code__.co_argcount == 2 else one)


def apply(name, *arrays, dtype=None):
    arrays = [np.ascontiguousarray(np.atleast_1d(a)) for a in arrays]
    out = np.empty_like(arrays[0], dtype=dtype)
    mapped(name)(*arrays, out)
    return out


def llvm(kernel):
    """The optimised IR of a kernel's only specialisation."""
    return kernel.inspect_llvm(kernel.signatures[0])


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def reference(name, x):
    """In float64."""
    function = {"sigmoid": sigmoid, "erf": np.vectorize(math.erf, otypes="d")}.get(name) or getattr(np, name)
    with np.errstate(all="ignore"):
        return function(x.astype(np.float64))


def ulps(a, b):
    """How many floats apart; NaN is next to NaN only."""
    orders = []
    for values in (a, b):
        bits = values.view(WIDTH[str(values.dtype)]).astype(np.int64)
        orders.append(np.where(bits < 0, np.iinfo(WIDTH[str(values.dtype)]).min - bits, bits))
    distance = np.abs(orders[0] - orders[1])
    nan = np.isnan(a) | np.isnan(b)
    return np.where(nan, np.where(np.isnan(a) & np.isnan(b), 0, 2**40), distance)


def spread():
    """Bit patterns of every exponent and both signs: subnormals, infinities and NaN among them."""
    return np.arange(0, 2**32, 2053, dtype=np.uint32).view(np.float32)


def dense():
    ranges = [(-1, 1), (0.25, 2.5), (-5, 5), (-110, 110), (-104, -87), (88, 89)]
    return np.concatenate([np.linspace(*r, 100_003, dtype=np.float32) for r in ranges])


@pytest.mark.parametrize("name", BOUND)
def test_float32_is_accurate_everywhere(name):
    x = np.concatenate([spread(), dense()])
    with np.errstate(over="ignore"):
        expected = reference(name, x).astype(np.float32)
    error = ulps(apply(f"{name}_f32", x), expected)
    worst = int(error.argmax())
    assert error[worst] <= BOUND[name], f"{error[worst]} ulp at {x[worst]!r}"


@pytest.mark.parametrize("name", BOUND)
def test_float64_is_accurate(name):
    x = np.concatenate([np.linspace(-40, 40, 30_011), np.linspace(-750, 720, 3001), np.geomspace(5e-324, 1e300, 3001)])
    assert ulps(apply(f"{name}_f64", x), reference(name, x)).max() <= 4


SPECIAL = {  # x, f(x)
    "exp": [(-INF, 0), (INF, INF), (0, 1), (TINY, 1), (-TINY, 1), (1e38, INF), (-1e38, 0)],
    "expm1": [(-INF, -1), (INF, INF), (0, 0), (TINY, TINY), (-TINY, -TINY), (1e38, INF), (-1e38, -1)],
    "log": [(0, -INF), (INF, INF), (1, 0), (-1, NAN), (-INF, NAN), (-TINY, NAN)],
    "log1p": [(-1, -INF), (INF, INF), (0, 0), (TINY, TINY), (-TINY, -TINY), (-1.5, NAN), (-INF, NAN)],
    "tanh": [(-INF, -1), (INF, 1), (0, 0), (TINY, TINY), (-TINY, -TINY), (40, 1), (-1e38, -1)],
    "sigmoid": [(-INF, 0), (INF, 1), (0, 0.5), (TINY, 0.5), (1e38, 1), (-1e38, 0)],
    "erf": [(-INF, -1), (INF, 1), (0, 0), (40, 1), (-1e38, -1)],
}


@pytest.mark.parametrize("dtype", WIDTH)
@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name, dtype):
    x, expected = (np.array(column, dtype) for column in zip(*SPECIAL[name], (NAN, NAN), (-NAN, NAN), strict=True))
    for repeated in (1, 20):  # one by one, and in vectors
        got = apply(f"{name}_{dtype[0]}{dtype[-2:]}", np.tile(x, repeated))
        np.testing.assert_array_equal(got, np.tile(expected, repeated))


def test_subnormal_results():
    x = np.array([-88, -95, -100, -103, -103.9], np.float32)
    expected = np.exp(x.astype(np.float64)).astype(np.float32)
    assert 0 < expected.min() <= expected.max() < 2.0**-126
    np.testing.assert_array_equal(apply("exp_f32", x), expected)
    np.testing.assert_array_equal(apply("sigmoid_f32", x), expected)
    assert abs(apply("log_f32", np.float32(1e-42))[0] - math.log(float(np.float32(1e-42)))) <= 8e-6


@pytest.mark.parametrize("name", ["tanh", "erf"])
def test_odd_and_at_most_one(name):
    x = dense()
    y = apply(f"{name}_f32", x)
    np.testing.assert_array_equal(apply(f"{name}_f32", -x), -y)
    assert np.abs(y).max() == 1


@pytest.mark.parametrize("dtype", WIDTH)
def test_max_min_sign_pow(dtype):
    suffix = f"_{dtype[0]}{dtype[-2:]}"
    values = np.array([-INF, -2, -1e-42, 0, 1e-42, 0.5, 3, INF, NAN, -NAN], dtype)
    a, b = (grid.ravel() for grid in np.meshgrid(values, values))
    np.testing.assert_array_equal(apply("max" + suffix, a, b), np.maximum(a, b))
    np.testing.assert_array_equal(apply("min" + suffix, a, b), np.minimum(a, b))
    np.testing.assert_array_equal(apply("sign" + suffix, a), np.sign(a))
    with np.errstate(all="ignore"):
        expected = np.power(a, b)
    np.testing.assert_allclose(apply("pow" + suffix, a, b), expected, rtol=4 * np.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", WIDTH)
def test_keys_are_in_the_order_of_the_floats(dtype):
    suffix, integer = f"_{dtype[0]}{dtype[-2:]}", WIDTH[dtype]
    info = np.iinfo(integer)
    bits = np.random.default_rng(0).integers(info.min, info.max, 100_000, integer, endpoint=True)
    x = np.concatenate([bits.view(dtype), np.array([0, 1e-44, -1e-44, 1, -1, INF, -INF], dtype)])
    x = np.sort(x[~np.isnan(x)])
    keys = apply("key" + suffix, x, dtype=integer)
    assert (np.diff(keys) > 0)[np.diff(x) > 0].all()
    assert keys.min() > getattr(numba_math, "LOWEST" + suffix)
    np.testing.assert_array_equal(apply("unkey" + suffix, keys, dtype=dtype).view(integer), x.view(integer))


@pytest.mark.parametrize("dtype", WIDTH)
def test_every_nan_has_a_key_above_infinity(dtype):
    suffix, integer = f"_{dtype[0]}{dtype[-2:]}", WIDTH[dtype]
    infinity = np.array([INF], dtype).view(integer)[0]
    payloads = np.array([infinity + 1, infinity + 12345, np.iinfo(integer).max], integer)
    nan = np.concatenate([payloads, payloads + np.iinfo(integer).min]).view(dtype)
    assert np.isnan(nan).all()
    keys = apply("key" + suffix, nan, dtype=integer)
    assert (keys > apply("key" + suffix, np.array([INF], dtype), dtype=integer)).all()
    assert np.isnan(apply("unkey" + suffix, keys, dtype=dtype)).all()


def test_max_of_keys():
    values = np.array([3, -7, 7, 0, -(2**31)], np.int32)
    a, b = (grid.ravel() for grid in np.meshgrid(values, values))
    np.testing.assert_array_equal(apply("max_int", a, b), np.maximum(a, b))


@cache
def bits_kernel():
    function = numba_math.random_bits

    def draw_bits(seed, draw, first, step, out):
        for i in range(out.size):
            out[i] = function(seed, draw, first + i, step)

    return numba.njit(**KERNEL)(draw_bits)


def test_random_bits_are_threefry():
    known = [  # Random123's kat_vectors: counter, key, first word
        ((0, 0), (0, 0), 0x6B200159),
        ((ONES, ONES), (ONES, ONES), 0x1CB996FC),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), 0xC4923A9C),
    ]
    out = np.empty(1, np.uint32)
    for counter, key, word in known:
        bits_kernel()(*key, *counter, out)
        assert out[0] == word
    out = np.empty(1003, np.uint32)
    for seed, draw, first, step in np.random.default_rng(0).integers(0, 2**32, (20, 4)).tolist():
        bits_kernel()(seed, draw, first, step, out)
        element = (first + np.arange(1003)) & ONES
        np.testing.assert_array_equal(out, threefry((seed, draw), (element, step))[0])


KNOWN_CPU = platform.machine().lower() in ("x86_64", "amd64", "aarch64", "arm64")
on_known_cpu = pytest.mark.skipif(not KNOWN_CPU, reason=f"not known whether {platform.machine()} has vector units")
FUNCTIONS = "exp|exp2|expm1|log|log2|log1p|tanh|erf|erfc|pow|floor|rint"
CALL = rf"svml|@(llvm\.)?({FUNCTIONS})(f\b|\.f|\.v)|call [^\n]*@_ZN15gpunet"  # of libm, or one that was not inlined


@on_known_cpu
@pytest.mark.parametrize("name", BOUND)
def test_float32_vectorises(name):
    apply(f"{name}_f32", np.ones(3, np.float32))
    code = llvm(mapped(f"{name}_f32"))
    assert re.search(r"= fmul [^\n]*<\d+ x float>", code)
    assert not re.search(CALL, code)


@on_known_cpu
def test_random_bits_vectorise():
    bits_kernel()(1, 2, 3, 4, np.empty(1, np.uint32))
    assert re.search(r"= xor <\d+ x i32>", llvm(bits_kernel()))


def test_only_running_sums_are_reordered():
    exp, tanh, add = numba_math.exp_f32, numba_math.tanh_f32, numba_math.add_f32

    @numba.njit(**KERNEL)
    def total(x):
        s = np.float32(0)
        for i in range(x.size):
            s = add(s, exp(x[i]) * tanh(x[i]))
        return s

    x = np.linspace(-3, 3, 4001, dtype=np.float32)
    expected = np.sum(np.exp(x) * np.tanh(x), dtype=np.float64)
    assert total(x) == pytest.approx(expected, rel=1e-6)
    reordered = [line for line in llvm(total).splitlines() if "reassoc" in line]
    assert reordered
    assert all(" fadd " in line or ".reduce.fadd." in line for line in reordered)
    if KNOWN_CPU:
        assert any(re.search(r"fadd [^\n]*<\d+ x float>", line) for line in reordered)
