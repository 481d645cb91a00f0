"""Scalar functions for generated Numba kernels: LLVM inlines them into a kernel's loop and vectorises them.

The float32 ones are free of branches and of calls to libm; they are within 1 to 2 units in the last place, over the
whole range. Compiled without "reassoc", which would ruin them, whatever the kernel around them is compiled with.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from gpunet.random import PARITY, ROTATIONS

primitive: Callable[..., Any] = njit(fastmath={"nsz", "contract"}, error_model="numpy", nogil=True)
accumulation: Callable[..., Any] = njit(fastmath={"nsz", "contract", "reassoc"}, error_model="numpy", nogil=True)

f32, f64, i32, i64, u32 = np.float32, np.float64, np.int32, np.int64, np.uint32


def _table(*coefficients: float) -> tuple[Any, ...]:
    """Coefficients of a polynomial in float32, the highest power first."""
    return tuple(f32(c) for c in coefficients)


# Minimax polynomials: each coefficient is rounded to float32 before the next one is fitted.
# (expm1(r) - r) / r² for |r| <= log(2)/2
EXPM1 = _table(0.0013869948, 0.008366253, 0.041667443, 0.16666546, 0.49999997)
# (log1p(r) - r + r²/2) / r³ for sqrt(1/2) <= 1 + r <= sqrt(2)
LOG1P = _table(-0.07636362, 0.12762143, -0.13159598, 0.14201586, -0.1662341, 0.20001242, -0.2500082, 0.3333333)
# (tanh(x) / x - 1) / x² by x², for |x| <= 0.625
TANH = _table(-0.005692296, 0.020628167, -0.053736515, 0.13331406, -0.3333328)
# erf(x) / x - 1 by x², for |x| <= 0.875
ERF = _table(-0.0006020491, 0.004998928, -0.026770486, 0.11281922, -0.37612504, 0.12837915)
# log(erfc(x)) for 0.875 <= x <= 4
LOG_ERFC = _table(0.00020099455, -0.0030922832, 0.022420203, -0.1043275, -0.6367372, -1.1279361, -0.00013357737)

LOG2_E, LN2_HIGH, LN2_LOW = f32(1.44269504), f32(0.693359375), f32(-2.12194440e-4)
SHIFT, SHIFT_BITS = f32(1.5 * 2**23), i32(0x4B400000)
SQRT_HALF_BITS, EXPONENT, FRACTION = i32(0x3F3504F3), i32(23), i32(0x7FFFFF)
ZERO, HALF, ONE, TWO = f32(0), f32(0.5), f32(1), f32(2)
INF, NAN = f32(np.inf), f32(np.nan)
TINY, TO_NORMAL = f32(2.0**-126), f32(2.0**23)


@primitive
def horner(x: Any, coefficients: Any) -> Any:
    """Value of a polynomial by Horner's rule (1819); LLVM unrolls the loop over the constant table."""
    y = coefficients[0]
    for k in range(1, len(coefficients)):
        y = y * x + coefficients[k]
    return y


@primitive
def bits(x: Any) -> Any:
    """The bits of a float32 as an int32."""
    return f32(x).view(i32)


@primitive
def power_of_two(n: Any) -> Any:
    """2**n for -126 <= n <= 127, by its bits."""
    return i32((n + i32(127)) << EXPONENT).view(f32)


@primitive
def reduced(x: Any) -> Any:
    """n and expm1(r) with x = n log(2) + r, |r| <= log(2)/2: log(2) in two parts (Cody & Waite 1980), then minimax."""
    shifted = x * LOG2_E + SHIFT  # its last bits are n, rounded to nearest
    n = shifted - SHIFT
    r = x - n * LN2_HIGH - n * LN2_LOW
    return i32(bits(shifted) - SHIFT_BITS), horner(r, EXPM1) * (r * r) + r


@primitive
def clamped(x: Any, low: Any, high: Any) -> Any:
    """The nearest to x within [low, high], and low for NaN."""
    x = x if x > low else low
    return x if x < high else high


@primitive
def exp_f32(x: Any) -> Any:
    """exp(x) = 2**n (1 + expm1(r)) (Cody & Waite 1980), scaled in two steps as 2**n itself may not be a float32."""
    n, p = reduced(clamped(x, f32(-104), f32(89)))
    half = i32(n >> i32(1))
    y = (ONE + p) * power_of_two(half) * power_of_two(i32(n - half))
    return y if x == x else x


@primitive
def expm1_f32(x: Any) -> Any:
    """expm1(x) = 2**n expm1(r) + (2**n - 1), at half scale as 2**128 is no float32 (Cody & Waite 1980)."""
    n, p = reduced(clamped(x, f32(-20), f32(89)))
    scale = power_of_two(i32(n - i32(1)))
    y = p if n == 0 else (p * scale + (scale - HALF)) * TWO
    return y if x == x else x


@primitive
def log_reduced(r: Any, n: Any) -> Any:
    """n log(2) + log1p(r) for sqrt(1/2) <= 1 + r <= sqrt(2), after Cephes' logf (Moshier 1989)."""
    n = f32(n)
    square = r * r
    y = horner(r, LOG1P) * (square * r) + n * LN2_LOW
    return r + (y - HALF * square) + n * LN2_HIGH


@primitive
def log_f32(x: Any) -> Any:
    """log(x) = n log(2) + log(m), m = x / 2**n within [sqrt(1/2), sqrt(2)]; subnormal x by way of 2**23 x."""
    subnormal = x < TINY
    scaled = x * TO_NORMAL
    b = i32(bits(scaled if subnormal else x) - SQRT_HALF_BITS)
    n = i32((b >> EXPONENT) - (EXPONENT if subnormal else i32(0)))
    m = i32((b & FRACTION) + SQRT_HALF_BITS).view(f32)
    y = log_reduced(m - ONE, n)
    y = y if x < INF else x  # inf and NaN
    y = y if x != ZERO else -INF
    return NAN if x < ZERO else y


@primitive
def log1p_f32(x: Any) -> Any:
    """log1p(x) = n log(2) + log1p(r), r = x / 2**n + (1 / 2**n - 1): no digit of x is lost, for n = 0 least of all."""
    n = i32(i32(bits(ONE + x) - SQRT_HALF_BITS) >> EXPONENT)
    quadruple = power_of_two(i32(i32(2) - n))  # 4 / 2**n is normal for the largest x, too
    r = (x * quadruple) * f32(0.25) + (quadruple * f32(0.25) - ONE)
    y = log_reduced(r, n)
    y = y if x < INF else x  # inf and NaN
    y = y if x != -ONE else -INF
    return NAN if x < -ONE else y


@primitive
def tanh_f32(x: Any) -> Any:
    """tanh(x) by an odd polynomial below 0.625 and 1 - 2 / (exp(2 |x|) + 1) above (Cody & Waite 1980)."""
    a = abs(x)
    square = x * x
    small = horner(square, TANH) * (square * x) + x
    n, p = reduced(clamped(a + a, ZERO, f32(20)))
    large = ONE - TWO / ((ONE + p) * power_of_two(n) + ONE)
    large = -large if x < ZERO else large
    y = small if a < f32(0.625) else large
    return y if x == x else x


@primitive
def sigmoid_f32(x: Any) -> Any:
    """1 / (1 + exp(-x)) for x >= 0 and exp(x) / (1 + exp(x)) below: no overflow, and subnormal at the lower end."""
    e = exp_f32(-abs(x))
    return (e if x < ZERO else ONE) / (ONE + e)


@primitive
def erf_f32(x: Any) -> Any:
    """erf(x) by an odd polynomial below 0.875 and 1 - exp(log(erfc(|x|))) above, the ranges as in Cody (1969)."""
    a = abs(x)
    small = horner(x * x, ERF) * x + x
    n, p = reduced(horner(clamped(a, ZERO, f32(4)), LOG_ERFC))
    large = ONE - (ONE + p) * power_of_two(n)
    large = -large if x < ZERO else large
    y = small if a < f32(0.875) else large
    return y if x == x else x


def _libm(function: Callable[[float], float]) -> Any:
    """The float64 function of libm."""

    @primitive
    def call(x: Any) -> Any:
        """One call of libm."""
        return function(x)

    return call


exp_f64, expm1_f64, log_f64, log1p_f64 = _libm(math.exp), _libm(math.expm1), _libm(math.log), _libm(math.log1p)
tanh_f64, erf_f64 = _libm(math.tanh), _libm(math.erf)


@primitive
def sigmoid_f64(x: Any) -> Any:
    """1 / (1 + exp(-x)) for x >= 0 and exp(x) / (1 + exp(x)) below, by libm's exp of -|x|."""
    e = math.exp(-abs(x))
    return (e if x < 0.0 else 1.0) / (1.0 + e)


@primitive
def pow_f32(x: Any, y: Any) -> Any:
    """x**y of libm."""
    return math.pow(x, y)


@primitive
def max_f32(a: Any, b: Any) -> Any:
    """The larger one, and NaN where either is NaN: one that equals itself is larger than no NaN."""
    return a if (a >= b) | (a != a) else b


@primitive
def min_f32(a: Any, b: Any) -> Any:
    """The smaller one, and NaN where either is NaN."""
    return a if (a <= b) | (a != a) else b


@primitive
def sign_f32(x: Any) -> Any:
    """-1, 0 or 1 by two comparisons, and NaN for NaN."""
    return ONE if x > ZERO else (-ONE if x < ZERO else x)


@primitive
def sign_f64(x: Any) -> Any:
    """-1, 0 or 1 by two comparisons, and NaN for NaN."""
    return 1.0 if x > 0.0 else (-1.0 if x < 0.0 else x)


@accumulation
def add_f32(s: Any, x: Any) -> Any:
    """s + x of a running sum, which may be summed in any order."""
    return s + x


pow_f64, max_f64, min_f64, add_f64 = pow_f32, max_f32, min_f32, add_f32  # of any type

MAGNITUDE_f32, MAGNITUDE_f64 = i32(0x7FFFFFFF), i64(0x7FFFFFFFFFFFFFFF)
LOWEST_f32, LOWEST_f64 = i32(-(2**31)), i64(-(2**63))


@primitive
def key_f32(x: Any) -> Any:
    """An int32 in the order of the float32s, their bits with a negative one's magnitude inverted; NaN is above inf."""
    b = bits(x)
    return MAGNITUDE_f32 if x != x else i32(b ^ i32(i32(b >> i32(31)) & MAGNITUDE_f32))


@primitive
def unkey_f32(k: Any) -> Any:
    """The float32 whose key is k: inverts the magnitude once more."""
    return i32(k ^ i32(i32(k >> i32(31)) & MAGNITUDE_f32)).view(f32)


@primitive
def key_f64(x: Any) -> Any:
    """An int64 in the order of the float64s, their bits with a negative one's magnitude inverted; NaN is above inf."""
    b = f64(x).view(i64)
    return MAGNITUDE_f64 if x != x else b ^ ((b >> i64(63)) & MAGNITUDE_f64)


@primitive
def unkey_f64(k: Any) -> Any:
    """The float64 whose key is k: inverts the magnitude once more."""
    return i64(k ^ ((k >> i64(63)) & MAGNITUDE_f64)).view(f64)


@primitive
def max_int(a: Any, b: Any) -> Any:
    """The larger of two keys by one comparison, of which LLVM makes a vector maximum."""
    return a if a > b else b


@primitive
def mix(x: Any, y: Any, distance: Any) -> Any:
    """One round of Threefry (Salmon et al. 2011): add, rotate to the left, xor."""
    x = u32(x + y)
    return x, u32(u32(u32(y << distance) | u32(y >> u32(u32(32) - distance))) ^ x)


@primitive
def mix_four(x: Any, y: Any, distances: Any) -> Any:
    """Four rounds, by the distances of a constant table."""
    for k in range(4):
        x, y = mix(x, y, distances[k])
    return x, y


EVEN, ODD = tuple(u32(r) for r in ROTATIONS[:4]), tuple(u32(r) for r in ROTATIONS[4:])
PARITY_u32 = u32(PARITY)


@primitive
def random_bits(seed: Any, draw: Any, element: Any, step: Any) -> Any:
    """The first word of Threefry-2x32-20 (Salmon et al. 2011), in native uint32: the same as gpunet.random's."""
    a, b = u32(seed), u32(draw)
    c = u32(u32(a ^ b) ^ PARITY_u32)
    x, y = mix_four(u32(u32(element) + a), u32(u32(step) + b), EVEN)
    x, y = mix_four(u32(x + b), u32(y + u32(c + u32(1))), ODD)
    x, y = mix_four(u32(x + c), u32(y + u32(a + u32(2))), EVEN)
    x, y = mix_four(u32(x + a), u32(y + u32(b + u32(3))), ODD)
    x, y = mix_four(u32(x + b), u32(y + u32(c + u32(4))), EVEN)
    return u32(x + c)
