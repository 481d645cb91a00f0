"""Activations that saturate: their slope vanishes for large inputs of either sign, and with it the gradient."""

from __future__ import annotations

from typing import Any

from gpunet.backend import Array
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

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """tanh(x)"""
        return xp.tanh(x)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy (1 - y²)"""
        return dy * (1 - y * y)
