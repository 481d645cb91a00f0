"""Parameter and the flat store that holds all values in one buffer and all gradients in another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

from gpunet.backend import Array, Backend, Fused, Shape
from gpunet.errors import ArgumentError
from gpunet.formula import Formula

Initializer: TypeAlias = Callable[[int, str, Shape], Any]
"""(seed, path, shape) -> host array"""

ALIGNMENT = 256
"""Bytes that every view starts at a multiple of."""
BYTES = {"float32": 4, "float64": 8}
MIXED = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}
"""What layers compute with and keep, while parameters, gradients and the update are float32.

Micikevicius et al.: Mixed Precision Training (2018).
"""


class Parameter:
    """A trained array: a named view into the store's flat values and gradients.

    name        path in the model, such as "0.weight"
    trainable   frozen parameters get no gradient and are not updated
    value       what layers compute with
    master      what is trained; the same array as ``value``, but in mixed precision
    grad        all three are views, which change identity only when the store is laid out anew
    written     whether this step wrote a gradient already
    group       number of its group of optimizer settings
    """

    value: Array
    master: Array
    grad: Array

    def __init__(self, name: str, shape: Shape, init: Initializer):
        self.name, self.shape, self.init = name, tuple(shape), init
        self.trainable, self.written, self.group = True, False, 0
        self.store: ParameterStore | None = None

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def grad_target(self) -> tuple[Array, bool]:
        """(out, accumulate) for the next gradient of this step: the first write overwrites, later ones add."""
        accumulate, self.written = self.written, True
        return self.grad, accumulate

    def add_grad(self, gradient: Array) -> None:
        """For a gradient that exists already; matrix products and kernels write to ``grad_target`` instead."""
        out, accumulate = self.grad_target()
        if accumulate:
            out += gradient
        else:
            out[...] = gradient

    def __repr__(self) -> str:
        return f"Parameter('{self.name}', {self.shape})"


class State:
    """An array that a layer keeps between steps but does not train, such as a running mean; part of the weights.

    name   path in the model, such as "1.running_mean"
    value  written in place, in training only
    """

    def __init__(self, name: str, value: Array):
        self.name, self.value, self.shape = name, value, tuple(value.shape)

    def __repr__(self) -> str:
        return f"State('{self.name}', {self.shape})"


class ParameterStore:
    """[trainable, by group | frozen] in one flat buffer of values and one of gradients.

    A norm, a clip and a checkpoint are each one pass over a span of the buffers, a step is one for each group. Views
    are aligned to 256 bytes and the padding between them is zero in both, which leaves sums over the buffers as they
    are. In mixed precision a third buffer, ``rounded``, holds the values as layers compute with them.
    """

    def __init__(self, parameters: Sequence[Parameter], backend: Backend, dtype: str, compute: str | None = None):
        self.backend, self.dtype, self.compute = backend, dtype, compute or dtype
        self.parameters = list(dict.fromkeys(parameters))  # shared ones are laid out once
        for p in self.parameters:
            if p.store is not None:
                raise ArgumentError(
                    f"parameter '{p.name}' belongs to another model. Make a new layer for each model; "
                    "use one twice only within a model."
                )
        self.name = f"mixed_{self.compute}" if self.compute != dtype else dtype  # what ``build`` calls it
        self.version = 0
        self._fused: dict[Any, Fused] = {}
        self.values = self.grads = self.rounded = backend.zeros((0,), dtype)
        self.offsets: dict[str, int] = {}
        self.trainable_end = 0
        self._lay_out()

    def _lay_out(self) -> None:
        """Place all parameters anew, keeping their values, and the gradients of those that are trained."""
        step = ALIGNMENT // BYTES[self.dtype]
        order = sorted(self.parameters, key=lambda p: (not p.trainable, p.group))
        offset = self.trainable_end = 0
        self.spans: dict[int, tuple[int, int]] = {}
        for p in order:
            self.offsets[p.name] = start = offset
            offset += -(-p.size // step) * step
            if p.trainable:
                self.spans[p.group] = (self.spans.get(p.group, (start, start))[0], offset)
                self.trainable_end = offset
        self.values = self.backend.zeros((offset,), self.dtype)
        self.grads = self.backend.zeros((offset,), self.dtype)
        mixed = self.compute != self.dtype
        self.rounded = self.backend.zeros((offset,), self.compute) if mixed else self.values
        for p in order:
            master, grad = self.view(self.values, p), self.view(self.grads, p)
            if p.store is not None:
                master[...] = p.master
                if p.trainable and p.written:
                    grad[...] = p.grad
            p.store, p.master, p.grad, p.written = self, master, grad, p.written and p.trainable
            p.value = self.view(self.rounded, p) if mixed else master
        self.refresh()
        self.trainable = [p for p in self.parameters if p.trainable]
        self.version += 1

    def view(self, buffer: Array, p: Parameter) -> Array:
        """The part of a flat buffer that belongs to a parameter, in its shape."""
        start = self.offsets[p.name]
        return self.backend.xp.reshape(buffer[start : start + p.size], p.shape)

    def moved(self, buffer: Array, offsets: dict[str, int]) -> Array:
        """A flat buffer laid out as the values are now. It was laid out by ``offsets``; what is not there is zero."""
        fresh = self.backend.zeros(self.values.shape, self.dtype)
        for p in self.parameters:
            if p.name in offsets:
                start = offsets[p.name]
                self.view(fresh, p)[...] = self.backend.xp.reshape(buffer[start : start + p.size], p.shape)
        return fresh

    def refresh(self, end: int | None = None) -> None:
        """Round the values anew for the layers, up to a place in the buffer, after whatever changed them."""
        if self.compute != self.dtype and self.values.shape[0]:
            rounded = self.rounded[:end]
            self.fused(_rounded)(rounded, self.values[:end], out=rounded)

    def mark_written(self) -> None:
        """Say that every gradient was written: recorded work did it, which runs no Python."""
        for p in self.trainable:
            p.written = True

    def initialize(self, seed: int) -> None:
        """Draw the initial values, each keyed by (seed, path, shape)."""
        for p in self.parameters:
            p.master[...] = self.backend.asarray(p.init(seed, p.name, p.shape), self.dtype)
        self.refresh()

    def freeze(self, pattern: str, frozen: bool = True) -> None:
        """Freeze or thaw the parameters whose names match a pattern such as "0.*"."""
        matching = [p for p in self.parameters if fnmatchcase(p.name, pattern)]
        if not matching:
            names = ", ".join(p.name for p in self.parameters)
            raise ArgumentError(f"no parameter matches '{pattern}'. The parameters are: {names}")
        for p in matching:
            p.trainable = not frozen
        self._lay_out()

    def arrange(self, groups: Sequence[int]) -> None:
        """Place the parameters by these groups, one number for each of ``parameters``, if they are not already."""
        if [p.group for p in self.parameters] != list(groups):
            for p, group in zip(self.parameters, groups, strict=True):
                p.group = group
            self._lay_out()

    def begin(self) -> None:
        """A new gradient step: the next write of each gradient overwrites."""
        for p in self.trainable:
            p.written = False

    def finish(self) -> None:
        """Zero the gradients that no layer wrote; idempotent. Whoever reads gradients calls it first."""
        for p in self.trainable:
            if not p.written:
                p.grad[...] = 0.0
                p.written = True

    def fused(self, formula: Formula) -> Fused:
        """A formula over the flat buffers, prepared once."""
        if formula not in self._fused:
            self._fused[formula] = self.backend.fuse(formula)
        return self._fused[formula]


def _rounded(xp: Any, rounded: Array, values: Array) -> Array:
    """The values; stored in the narrower type of the two."""
    return values
