"""Activations that saturate: their slope vanishes for large inputs of either sign, and with it the gradient."""

from __future__ import annotations

from typing import Any, ClassVar

from gpunet.backend import Array
from gpunet.context import Context
from gpunet.formula import sigmoid
from gpunet.pointwise import Pointwise


class Sigmoid(Pointwise):
    """Logistic function: a probability from a logit; for outputs and gates.

    Its slope is at most 1/4, so a stack of sigmoid layers shrinks gradients by that factor each (vanishing gradients).

    Forward    y = 1 / (1 + exp(-x))
    Backward   dx = dy y (1 - y)
    Shapes     x, y (…, k)
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """1 / (1 + exp(-x))"""
        return sigmoid(x)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy y (1 - y)"""
        return dy * y * (1 - y)


class Tanh(Pointwise):
    """Hyperbolic tangent: a sigmoid centred at zero, with slope 1 there.

    Forward    y = tanh(x)
    Backward   dx = dy (1 - y²)
    Shapes     x, y (…, k)
    """

    gain: ClassVar[float] = 5 / 3

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """tanh(x)"""
        return xp.tanh(x)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy (1 - y²)"""
        return dy * (1 - y * y)


class Softsign(Pointwise):
    """A tanh that saturates slowly, without an exponential.

    Forward    y = x / (1 + |x|)
    Backward   dx = dy (1 - |y|)²
    Shapes     x, y (…, k)

    Reference: Turian, Bergstra, Bengio: Quadratic Features and Deep Architectures for Chunking (2009).
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x / (1 + |x|)"""
        return x / (1 + xp.abs(x))

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy (1 - |y|)²"""
        return dy * (1 - xp.abs(y)) * (1 - xp.abs(y))


class HardSigmoid(Pointwise):
    """The logistic function in three straight lines.

    Forward    y = min(max(x / 6 + 1/2, 0), 1)
    Backward   dx = dy / 6 where 0 < y < 1, else 0
    Shapes     x, y (…, k)

    Reference: Courbariaux, Bengio, David: BinaryConnect (2015).
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """min(max(x / 6 + 1/2, 0), 1)"""
        return xp.minimum(xp.maximum(x / 6 + 0.5, 0.0), 1.0)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy / 6 where 0 < y < 1"""
        return xp.where((y <= 0) | (y >= 1), 0.0, dy / 6)


class Identity(Pointwise):
    """Nothing: y = x. It drops out of what runs.

    Forward    y = x
    Backward   dx = dy
    Shapes     x, y (…, k)
    """

    def is_identity(self, ctx: Context) -> bool:
        """Always."""
        return True

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x"""
        return x

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy"""
        return dy
