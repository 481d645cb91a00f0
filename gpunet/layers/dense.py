"""Dense, and the two parts it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

from gpunet.backend import Array, Shape
from gpunet.context import Context
from gpunet.errors import ArgumentError, ShapeError
from gpunet.initializers import HeNormal, Zeros
from gpunet.layer import Layer, Saved, batched
from gpunet.parameter import Initializer, Parameter
from gpunet.pointwise import Pointwise


@dataclass(eq=False, kw_only=True, repr=False)
class Dense(Layer):
    """Fully connected layer.

    Forward    y = x W + b
    Backward   dW = xᵀ dy      db = Σ dy      dx = dy Wᵀ
    Shapes     x (…, I)   W (I, O)   b (O,)   y (…, O)
    Raises     ArgumentError: units < 1.   ShapeError: the input has no axis besides the batch.
    """

    units: int = field(kw_only=False)
    use_bias: bool = True
    weight_init: Initializer = HeNormal()
    bias_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.units, Integral) or self.units < 1:
            raise ArgumentError(f"Dense needs a whole number of units, at least 1, but got {self.units!r}.")
        self.units = int(self.units)

    def setup(self, shape: Shape) -> Shape:
        """Declare weight and bias."""
        if not shape:
            raise ShapeError(f"{self.title} needs inputs (…, features) but got {batched(shape)}. Use x[:, None].")
        self._parts: list[Layer] = [MatMul(self.parameter("weight", (shape[-1], self.units), self.weight_init))]
        if self.use_bias:
            self._parts.append(Bias(self.parameter("bias", (self.units,), self.bias_init)))
        return (*shape[:-1], self.units)

    def parts(self) -> list[Layer]:
        """[MatMul, Bias]: the bias joins the pointwise layers behind it."""
        return self._parts


class MatMul(Layer):
    """The linear map of Dense.

    Forward    y = x W
    Backward   dW = xᵀ dy      dx = dy Wᵀ
    Shapes     x (…, I)   W (I, O)   y (…, O)
    """

    fresh_output = True
    fresh_input_grad = True

    def __init__(self, weight: Parameter):
        super().__init__()
        self.weight = weight

    def parameters(self) -> list[Parameter]:
        """[weight]"""
        return [self.weight]

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """y = x W"""
        rows = self._rows(x)
        y = ctx.backend.gemm(rows, self.weight.value)
        return self._like(x, y), rows

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """dW = xᵀ dy      dx = dy Wᵀ"""
        x, rows = saved, self._rows(dy)
        if self.weight.trainable:
            out, accumulate = self.weight.grad_target()
            ctx.backend.gemm(x, rows, transpose_a=True, out=out, accumulate=accumulate)
        if not ctx.needs_input_grad:
            return None
        dx = ctx.backend.gemm(rows, self.weight.value, transpose_b=True)
        return self._like(dy, dx)

    def _rows(self, x: Array) -> Array:
        if len(x.shape) == 2:
            return x
        return self.backend.xp.reshape(x, (-1, x.shape[-1]))  # (…, I) -> (rows, I)

    def _like(self, x: Array, rows: Array) -> Array:
        if len(x.shape) == 2:
            return rows
        return self.backend.xp.reshape(rows, (*x.shape[:-1], rows.shape[-1]))  # (rows, O) -> (…, O)


class Bias(Pointwise):
    """The bias of Dense.

    Forward    y = x + b
    Backward   dx = dy      db = Σ dy
    Shapes     x (…, O)   b (O,)   y (…, O)
    """

    def __init__(self, bias: Parameter):
        super().__init__()
        self.bias = bias

    def parameters(self) -> list[Parameter]:
        """[bias]"""
        return [self.bias]

    def operands(self, ctx: Context) -> tuple[Parameter | Array, ...]:
        """(b,)"""
        return (self.bias,)

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """x + b"""
        (b,) = operands
        return x + b

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dx = dy, and db before the sum: dy"""
        return dy, dy
