"""Gated linear units: one half of the features opens or closes the other."""

from __future__ import annotations

from typing import Any

from gpunet.backend import Array, Fused, Shape
from gpunet.context import Context
from gpunet.errors import ShapeError
from gpunet.formula import sigmoid
from gpunet.layer import Layer, Saved, batched


class Gated(Layer):
    """Base of layers that split the last axis into two halves a and b, and combine them by one formula.

    Shapes     x (…, 2 k), y (…, k)
    Raises     ShapeError: the last axis is odd or missing.
    """

    fresh_output = True
    fresh_input_grad = True

    def formula(self, xp: Any, a: Array, b: Array) -> Array:
        """y"""
        raise NotImplementedError(f"{type(self).__name__} does not define formula")

    def derivative(self, xp: Any, dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """da, db"""
        raise NotImplementedError(f"{type(self).__name__} does not define derivative")

    def setup(self, shape: Shape) -> Shape:
        """Half the features."""
        if not shape or shape[-1] % 2:
            raise ShapeError(
                f"{self.title} halves the last axis, but got {batched(shape)}. Give the layer before it an even "
                "number of units."
            )
        self._forward: Fused = self.backend.fuse(self.formula)
        self._backward: Fused = self.backend.fuse(self.derivative)
        return (*shape[:-1], shape[-1] // 2)

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """y of both halves, read where they lie"""
        return self._forward(*halves(x)), x

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """dx = (da, db)"""
        if not ctx.needs_input_grad:
            return None
        return ctx.backend.xp.concat(self._backward(dy, *halves(saved)), axis=-1)  # 2 (…, k) -> (…, 2 k)


def halves(x: Array) -> tuple[Array, Array]:
    """(…, 2 k) -> two views (…, k)"""
    k = x.shape[-1] // 2
    return x[..., :k], x[..., k:]


class GLU(Gated):
    """Gated linear unit.

    Forward    y = a σ(b)
    Backward   da = dy σ(b)      db = dy a σ(b) (1 - σ(b))
    Shapes     x = (a, b) (…, 2 k), y (…, k)

    Reference: Dauphin, Fan, Auli, Grangier: Language Modeling with Gated Convolutional Networks (2017).
    """

    def formula(self, xp: Any, a: Array, b: Array) -> Array:
        """a σ(b)"""
        return a * sigmoid(b)

    def derivative(self, xp: Any, dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """dy σ(b), dy a σ(b) (1 - σ(b))"""
        s = sigmoid(b)
        return dy * s, dy * a * (s * (1 - s))


class SwiGLU(Gated):
    """Gated linear unit whose gate is SiLU: the feed-forward layer of many transformers.

    Forward    y = a σ(a) b
    Backward   da = dy b σ(a) (1 + a (1 - σ(a)))      db = dy a σ(a)
    Shapes     x = (a, b) (…, 2 k), y (…, k)

    Reference: Shazeer: GLU Variants Improve Transformer (2020).
    """

    def formula(self, xp: Any, a: Array, b: Array) -> Array:
        """a σ(a) b"""
        return a * sigmoid(a) * b

    def derivative(self, xp: Any, dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
        """dy b σ(a) (1 + a (1 - σ(a))), dy a σ(a)"""
        s = sigmoid(a)
        return dy * b * (s * (1 + a * (1 - s))), dy * (a * s)
