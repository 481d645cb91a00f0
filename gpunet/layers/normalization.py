"""Normalisation: along the features of a sample, or along the batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpunet.backend import Array, Shape
from gpunet.context import Context
from gpunet.errors import ArgumentError, ShapeError
from gpunet.formula import column_sum
from gpunet.formula.shapes import arithmetic
from gpunet.initializers import Ones, Zeros
from gpunet.layer import Layer, Saved, batched
from gpunet.parameter import Parameter
from gpunet.pointwise import Pointwise

ROW: dict[str, Any] = {"axis": -1, "keepdims": True}


@dataclass(eq=False, kw_only=True, repr=False)
class LayerNorm(Pointwise):
    """Mean 0 and variance 1 over the last axis, then scale and shift.

    Forward    h = (x - μ) / √(σ² + eps)      y = s h + b
    Backward   dx = (d - mean(d) - h mean(d h)) / √(σ² + eps),  d = s dy      ds = Σ h dy      db = Σ dy
    Shapes     x, y (…, k)   s, b (k,); without them if ``affine`` is False
    Raises     ArgumentError: eps not positive.

    Reference: Ba, Kiros, Hinton: Layer Normalization (2016).
    """

    eps: float = 1e-5
    affine: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps(self, self.eps)

    def setup(self, shape: Shape) -> Shape:
        """Declare scale and shift."""
        if self.affine:
            self.scale = self.parameter("scale", shape[-1:], Ones())
            self.shift = self.parameter("shift", shape[-1:], Zeros())
        return shape

    def operands(self, ctx: Context) -> tuple[Parameter | Array, ...]:
        """(s, b)"""
        return (self.scale, self.shift) if self.affine else ()

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """s h + b"""
        h, _ = self._normalized(xp, x)
        if not self.affine:
            return h
        s, b = operands
        return h * s + b

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dx, and ds, db before their sums"""
        h, r = self._normalized(xp, x)
        d = dy * operands[0] if self.affine else dy
        dx = r * (d - xp.mean(d, **ROW) - h * xp.mean(d * h, **ROW))
        return (dx, dy * h, dy) if self.affine else dx

    def _normalized(self, xp: Any, x: Array) -> tuple[Array, Array]:
        """h, 1 / √(σ² + eps)"""
        centred = x - xp.mean(x, **ROW)
        r = 1 / xp.sqrt(xp.mean(centred * centred, **ROW) + self.eps)
        return centred * r, r


@dataclass(eq=False, kw_only=True, repr=False)
class RMSNorm(Pointwise):
    """Root mean square 1 over the last axis, then scale.

    Forward    h = x / √(mean(x²) + eps)      y = s h
    Backward   dx = (d - h mean(d h)) / √(mean(x²) + eps),  d = s dy      ds = Σ h dy
    Shapes     x, y (…, k)   s (k,); without it if ``affine`` is False
    Raises     ArgumentError: eps not positive.

    Reference: Zhang, Sennrich: Root Mean Square Layer Normalization (2019).
    """

    eps: float = 1e-6
    affine: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps(self, self.eps)

    def setup(self, shape: Shape) -> Shape:
        """Declare the scale."""
        if self.affine:
            self.scale = self.parameter("scale", shape[-1:], Ones())
        return shape

    def operands(self, ctx: Context) -> tuple[Parameter | Array, ...]:
        """(s,)"""
        return (self.scale,) if self.affine else ()

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """s h"""
        h, _ = self._normalized(xp, x)
        return h * operands[0] if self.affine else h

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dx, and ds before its sum"""
        h, r = self._normalized(xp, x)
        d = dy * operands[0] if self.affine else dy
        dx = r * (d - h * xp.mean(d * h, **ROW))
        return (dx, dy * h) if self.affine else dx

    def _normalized(self, xp: Any, x: Array) -> tuple[Array, Array]:
        """h, 1 / √(mean(x²) + eps)"""
        r = 1 / xp.sqrt(xp.mean(x * x, **ROW) + self.eps)
        return x * r, r


@dataclass(eq=False, kw_only=True, repr=False)
class BatchNorm(Layer):
    """Each feature with mean 0 and variance 1 over the batch, then scale and shift.

    In training the batch's own mean and variance are used, and running averages of them are kept; outside of training
    the averages are used, and the layer is a fixed map.

    Forward    h = (x - μ) / √(σ² + eps)      y = s h + b
               running ← running + momentum (batch - running), the variance by n - 1
    Backward   dx = s (dy - db / n - h ds / n) / √(σ² + eps)      ds = Σ h dy      db = Σ dy;
               outside of training dx = s dy / √(σ² + eps)
    Shapes     x, y (…, k)   s, b, running_mean, running_variance (k,);   n the product of …
    Raises     ArgumentError: eps not positive, momentum outside [0, 1]; a batch of one row in training.

    Reference: Ioffe, Szegedy: Batch Normalization (2015).
    """

    fresh_output = True
    fresh_input_grad = True

    momentum: float = 0.1
    eps: float = 1e-5

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_eps(self, self.eps)
        if not 0 <= self.momentum <= 1:
            raise ArgumentError(f"BatchNorm needs momentum in [0, 1], but got {self.momentum!r}.")

    def setup(self, shape: Shape) -> Shape:
        """Declare scale, shift and the running averages."""
        if not shape:
            raise ShapeError(f"{self.title} needs inputs (…, features) but got {batched(shape)}. Use x[:, None].")
        k = shape[-1:]
        self.scale, self.shift = self.parameter("scale", k, Ones()), self.parameter("shift", k, Zeros())
        self.running_mean = self.state("running_mean", k, Zeros())
        self.running_variance = self.state("running_variance", k, Ones())
        self._numbers: dict[float, Array] = {}
        fuse = self.backend.fuse
        self._mean, self._variance, self._map = fuse(_batch_mean), fuse(_batch_variance), fuse(self._normalize)
        self._average, self._sums, self._dx = fuse(self._averages), fuse(self._gradients), fuse(self._input_gradient)
        return shape

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """s h + b"""
        n = math.prod(x.shape[:-1])
        mean, variance = self.running_mean.value, self.running_variance.value
        if ctx.training:
            if n == 1:
                raise ArgumentError(f"{self.title} needs two rows or more in training, but got {tuple(x.shape)}.")
            inverse = self._number(1 / max(n, 1))
            batch_mean = self._mean(x, inverse)
            batch_variance = self._variance(x, batch_mean, inverse)
            if n:
                unbiased = self._number(n / (n - 1))
                self._average(mean, variance, batch_mean, batch_variance, unbiased, out=(mean, variance))
            mean, variance = batch_mean, batch_variance
        y = self._map(x, mean, variance, self.scale.value, self.shift.value)
        return y, (x, mean, variance, ctx.training)

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """ds, db, dx"""
        x, mean, variance, training = saved
        ds, db = self._sums(dy, x, mean, variance)
        for p, gradient in ((self.scale, ds), (self.shift, db)):
            if p.trainable:
                p.add_grad(gradient)
        if not ctx.needs_input_grad:
            return None
        n = math.prod(x.shape[:-1]) if training else 0
        inverse = self._number(1 / n if n else 0.0)  # outside of training mean and variance do not depend on x
        return self._dx(dy, x, mean, variance, self.scale.value, ds, db, inverse)

    def _number(self, value: float) -> Array:
        """0-d operand, made once."""
        if value not in self._numbers:
            self._numbers[value] = self.backend.scalar(value, arithmetic(self.dtype))
        return self._numbers[value]

    def _normalize(self, xp: Any, x: Array, mean: Array, variance: Array, s: Array, b: Array) -> Array:
        """s h + b"""
        return (x - mean) / xp.sqrt(variance + self.eps) * s + b

    def _averages(self, xp: Any, mean: Array, variance: Array, m: Array, v: Array, unbiased: Array) -> Any:
        """Both running averages"""
        return mean + self.momentum * (m - mean), variance + self.momentum * (v * unbiased - variance)

    def _gradients(self, xp: Any, dy: Array, x: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
        """Σ h dy, Σ dy"""
        return column_sum(dy * ((x - mean) / xp.sqrt(variance + self.eps))), column_sum(dy)

    def _input_gradient(self, xp: Any, dy: Array, x: Array, *rest: Array) -> Array:
        """s (dy - db / n - h ds / n) / √(σ² + eps)"""
        mean, variance, s, ds, db, inverse = rest
        r = 1 / xp.sqrt(variance + self.eps)
        return s * r * (dy - db * inverse - (x - mean) * r * (ds * inverse))


def _batch_mean(xp: Any, x: Array, inverse: Array) -> Array:
    """Σ x / n"""
    return column_sum(x * inverse)


def _batch_variance(xp: Any, x: Array, mean: Array, inverse: Array) -> Array:
    """Σ (x - μ)² / n; not mean(x²) - μ², which cancels"""
    return column_sum((x - mean) * (x - mean) * inverse)


def _check_eps(layer: Any, eps: float) -> None:
    if not eps > 0:
        raise ArgumentError(f"{type(layer).__name__} needs eps > 0, but got {eps!r}.")
