"""Pointwise: a layer that is one formula. Group: neighbouring ones as one formula."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, ClassVar

from gpunet.backend import Array, Backend
from gpunet.context import Context
from gpunet.fold import Plan, plan
from gpunet.layer import Layer, Saved
from gpunet.parameter import Parameter


@dataclass(eq=False, kw_only=True, repr=False)
class Pointwise(Layer):
    """A layer that is one formula of (x, *operands), elementwise or along the last axis.

    Neighbouring Pointwise layers are composed and run as one formula forward and one backward. What the formula reads
    from the layer is a constant: changing it after the first run has no effect.
    """

    gain: ClassVar[float] = 1.0
    """Of an initializer for the weights before this layer, so that activations keep their size; PyTorch's values."""

    _solo: Group | None = field(init=False, default=None)

    def operands(self, ctx: Context) -> tuple[Parameter | Array, ...]:
        """Further arguments of the formula; called once per forward.

        A Parameter gets a gradient; its shape is (k,) or one element. A 0-d array, such as a random key, gets none.
        """
        return ()

    def is_identity(self, ctx: Context) -> bool:
        """Whether y = x in this context; then the layer is left out."""
        return False

    def formula(self, xp: Any, x: Array, *operands: Array) -> Array:
        """y."""
        raise NotImplementedError(f"{type(self).__name__} does not define formula")

    def derivative(self, xp: Any, dy: Array, x: Array, y: Array, *operands: Array) -> Any:
        """dx, or (dx, one unsummed gradient per Parameter operand)."""
        raise NotImplementedError(f"{type(self).__name__} does not define derivative")

    def detach(self) -> None:
        """Forget a build that failed."""
        super().detach()
        self._solo = None

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """y by the formula."""
        if self._solo is None:
            self._solo = Group([self], self.backend)
        return self._solo.forward(x, ctx)

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """dx by the derivative; sums of the parameters' gradients."""
        assert self._solo is not None  # saved comes from forward
        return self._solo.backward(dy, saved, ctx)


class Group(Layer):
    """Adjacent Pointwise layers as one formula forward and one backward."""

    def __init__(
        self, layers: Sequence[Pointwise], backend: Backend, in_place: bool = False, dy_in_place: bool = False
    ):
        super().__init__()
        self.layers, self.in_place, self.dy_in_place = list(layers), in_place, dy_in_place
        self.backend = backend
        self._plans: dict[Any, Plan] = {}
        self._version = -1
        self._optional: list[Pointwise] = []

    def parameters(self) -> list[Parameter]:
        """Of all members."""
        return [p for layer in self.layers for p in layer.parameters()]

    def _plan(self, x: Array, ctx: Context) -> Plan:
        if self._version != ctx.version:  # other parameters may be frozen now
            self._plans.clear()
            self._version = ctx.version
            self._optional = [one for one in self.layers if type(one).is_identity is not Pointwise.is_identity]
        identities = tuple([layer.is_identity(ctx) for layer in self._optional])
        key = (ctx.training, identities, x.dtype, x.shape[-1], len(x.shape))
        found = self._plans.get(key)
        if found is None:
            found = self._plans[key] = plan(self.layers, x, ctx)
        return found

    def forward(self, x: Array, ctx: Context) -> tuple[Array, Saved]:
        """y; in place where x is memory that nobody else holds."""
        made = self._plan(x, ctx)
        if made.forward is None:
            return x, (made, (), ())
        operands = [o for layer in made.layers for o in layer.operands(ctx)]
        arrays = [o.value if isinstance(o, Parameter) else o for o in operands]
        if made.saves == "x":
            return made.forward(x, *arrays), (made, (x, *arrays), operands)
        y = made.forward(x, *arrays, out=x if self.in_place else None)
        return y, (made, (y, *arrays) if made.saves == "y" else arrays, operands)

    def backward(self, dy: Array, saved: Saved, ctx: Context) -> Array | None:
        """dx, and the parameters' gradients straight into the store."""
        made, arrays, operands = saved
        fused = made.backward(ctx.needs_input_grad)
        if fused is None:
            return dy if ctx.needs_input_grad else None
        dx_is_output = ctx.needs_input_grad and not made.passes_dy
        out: list[Array | None] = [dy if self.dy_in_place else None] if dx_is_output else []
        add_later = []
        for i in made.trained:
            p = operands[i]
            grad, accumulate = p.grad_target()
            direct = not accumulate and made.summed[i]
            if not direct:
                add_later.append((grad, accumulate, len(out)))
            out.append(grad if direct else None)
        results = fused(dy, *arrays, out=tuple(out))
        for grad, accumulate, at in add_later:
            gradient = self.backend.xp.reshape(results[at], grad.shape)
            if accumulate:
                grad += gradient
            else:
                grad[...] = gradient
        if not ctx.needs_input_grad:
            return None
        return results[0] if dx_is_output else dy


def merge(parts: Sequence[Layer], backend: Backend) -> list[Layer]:
    """Runs of Pointwise parts become Groups; in place only on memory that a neighbour made and does not keep."""
    merged: list[Layer] = []
    for i, part in enumerate(parts):
        if not isinstance(part, Pointwise):
            merged.append(part)
        elif merged and isinstance(merged[-1], Group):
            merged[-1].layers.append(part)
        else:
            merged.append(Group([part], backend, in_place=i > 0 and parts[i - 1].fresh_output))
    for group, following in pairwise(merged):
        if isinstance(group, Group):
            group.dy_in_place = following.fresh_input_grad
    return merged
