"""Layers that gpunet does not have yet, written as a user would."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpunet.backend import Array, Shape
from gpunet.context import Context
from gpunet.initializers import Zeros
from gpunet.parameter import Parameter
from gpunet.pointwise import Pointwise

CURVATURE, FACTOR = 0.044715, math.sqrt(2 / math.pi)


class GELU(Pointwise):
    """Gaussian error linear unit, in the approximation by tanh.

    Forward    y = x (1 + t) / 2,   t = tanh(√(2/π) (x + 0.044715 x³))
    Backward   dx = dy ((1 + t) / 2 + x (1 - t²) √(2/π) (1 + 3 · 0.044715 x²) / 2)

    Reference: Hendrycks, Gimpel: Gaussian Error Linear Units (2016).
    """

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        return 0.5 * x * (1 + self._tanh(xp, x))

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        t = self._tanh(xp, x)
        inner = FACTOR * (1 + 3 * CURVATURE * (x * x))
        return dy * 0.5 * (1 + t + x * (1 - t * t) * inner)

    def _tanh(self, xp: Any, x: Array) -> Array:
        return xp.tanh(FACTOR * (x + CURVATURE * (x * x * x)))


@dataclass(eq=False, kw_only=True, repr=False)
class LayerNorm(Pointwise):
    """Each row to mean 0 and variance 1, then scaled and shifted.

    Forward    n = (x - mean x) r,   r = 1 / √(mean (x - mean x)² + eps),   y = n scale + shift
    Backward   dn = dy scale      dx = r (dn - mean dn - n mean (dn n))      dscale = Σ dy n      dshift = Σ dy

    Reference: Ba, Kiros, Hinton: Layer Normalization (2016).
    """

    eps: float = 1e-5

    def setup(self, shape: Shape) -> Shape:
        self.scale = self.parameter("scale", shape[-1:], lambda seed, path, shape: [1.0] * shape[0])
        self.shift = self.parameter("shift", shape[-1:], Zeros())
        return shape

    def operands(self, ctx: Context) -> tuple[Parameter | Array, ...]:
        return self.scale, self.shift

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        scale, shift = operands
        n, _ = self._normalize(xp, x)
        return n * scale + shift

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        n, r = self._normalize(xp, x)
        dn = dy * operands[0]
        dx = r * (dn - row_mean(xp, dn) - n * row_mean(xp, dn * n))
        return dx, dy * n, dy

    def _normalize(self, xp: Any, x: Array) -> tuple[Array, Array]:
        centred = x - row_mean(xp, x)
        r = 1 / xp.sqrt(row_mean(xp, centred * centred) + self.eps)
        return centred * r, r


def row_mean(xp: Any, x: Array) -> Array:
    return xp.mean(x, axis=-1, keepdims=True)
