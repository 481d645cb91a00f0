"""The error function for namespaces that have none."""

from __future__ import annotations

from typing import Any

# W. J. Cody: Rational Chebyshev Approximations for the Error Function, Mathematics of Computation 23 (1969).
SMALL = (
    (
        1.85777706184603153e-1,
        3.16112374387056560e0,
        1.13864154151050156e2,
        3.77485237685302021e2,
        3.20937758913846947e3,
    ),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)  # |x| < 0.5
MIDDLE = (
    (
        *(2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594e0, 6.61191906371416295e1),
        *(2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3),
        1.23033935479799725e3,
    ),
    (
        *(1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3),
        *(3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
    ),
)  # 0.5 <= |x| < 4
TINY, ONE = 0.46875, 6.0  # where the approximations meet; erf(6) is 1 to the last bit of float64


def erf(xp: Any, x: Any) -> Any:
    """erf(x) by array functions: within 5 ulp, odd, erf(±inf) = ±1, NaN kept."""
    a, zero = xp.abs(x), xp.zeros_like(x)
    small = xp.where(a < TINY, x, zero + TINY)  # each branch sees only what it is made for
    near = small * _ratio(SMALL, small * small)
    b = xp.where(a > ONE, zero + ONE, xp.where(a < TINY, zero + TINY, a))
    far = xp.sign(x) * (1 - xp.exp(-b * b) * _ratio(MIDDLE, b))
    return xp.where(a < TINY, near, far)


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: Any) -> Any:
    """P(x) / Q(x) by Horner's rule."""
    values = []
    for polynomial in coefficients:
        value = 0 * x + polynomial[0]
        for c in polynomial[1:]:
            value = value * x + c
        values.append(value)
    return values[0] / values[1]
