"""Softmax and its logarithm, along the last axis."""

from __future__ import annotations

from typing import Any

from gpunet.backend import Array
from gpunet.pointwise import Pointwise

ROW: dict[str, Any] = {"axis": -1, "keepdims": True}


class Softmax(Pointwise):
    """Probabilities of classes. Not before CrossEntropy, which takes logits.

    Forward    yⱼ = exp(xⱼ) / Σₖ exp(xₖ)
    Backward   dxⱼ = yⱼ (dyⱼ - Σₖ yₖ dyₖ)
    Shapes     x, y (…, k)

    Reference: Bridle: Probabilistic Interpretation of Feedforward Classification Network Outputs (1990).
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """exp(x - max x) / Σ exp(x - max x)"""
        e = xp.exp(x - xp.max(x, **ROW))
        return e / xp.sum(e, **ROW)

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """y (dy - Σ y dy)"""
        return y * (dy - xp.sum(y * dy, **ROW))


class LogSoftmax(Pointwise):
    """Logarithms of the probabilities of classes, which do not underflow.

    Forward    yⱼ = xⱼ - log Σₖ exp(xₖ)
    Backward   dxⱼ = dyⱼ - exp(yⱼ) Σₖ dyₖ
    Shapes     x, y (…, k)
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x - max x - log Σ exp(x - max x)"""
        shifted = x - xp.max(x, **ROW)
        return shifted - xp.log(xp.sum(xp.exp(shifted), **ROW))

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dy - exp(y) Σ dy"""
        return dy - xp.exp(y) * xp.sum(dy, **ROW)
