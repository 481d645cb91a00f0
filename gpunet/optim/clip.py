"""Gradient clipping."""

from __future__ import annotations

from typing import Any, overload

from gpunet.backend import Array
from gpunet.errors import ArgumentError
from gpunet.formula import total
from gpunet.layers.sequential import Sequential

EPS = 1e-6
"""Keeps the factor finite for a zero gradient; PyTorch's value."""


@overload
def clip(model: Sequential, *, norm: float) -> Array: ...
@overload
def clip(model: Sequential, *, value: float) -> None: ...
def clip(model: Sequential, *, norm: float | None = None, value: float | None = None) -> Array | None:
    """Bound all gradients, by their global norm or each by itself.

    norm       N = √Σ g²      g ← g min(1, norm / (N + 1e-6));  -> N, 0-d, on the device
    value      g ← min(max(g, -value), value)

    A norm of NaN makes all gradients NaN, as in PyTorch; by value a NaN stays alone. Nothing synchronises.
    Raises     ArgumentError: norm or value is not positive; none or both are given.

    Reference: Pascanu, Mikolov, Bengio: On the Difficulty of Training Recurrent Neural Networks (2013).
    """
    if (norm is None) == (value is None):
        raise ArgumentError(f"clip needs either norm or value, but got {norm=!r}, {value=!r}. Give one of them.")
    store = model.store
    if norm is not None:
        if not norm > 0:
            raise ArgumentError(f"the largest norm must be positive, but got {norm!r}. Try norm=1.0.")
        return clip_to(model, store.backend.scalar(norm, store.dtype))
    if value is None or not value > 0:
        raise ArgumentError(f"the largest value must be positive, but got {value!r}. Try value=1.0.")
    clamp_to(model, store.backend.scalar(value, store.dtype))
    return None


def clip_to(model: Sequential, limit: Array) -> Array:
    """As ``clip``, to a 0-d array of the device, so that nothing comes from the host."""
    store = model.store
    store.finish()
    gradients = store.grads[: store.trainable_end]
    size = store.fused(_norm)(store.fused(_square_sum)(gradients))
    store.fused(_scale)(gradients, size, limit, out=gradients)
    return size


def clamp_to(model: Sequential, limit: Array) -> None:
    """As ``clip`` by value, to a 0-d array of the device."""
    store = model.store
    store.finish()
    gradients = store.grads[: store.trainable_end]
    store.fused(_clamp)(gradients, limit, out=gradients)


def _square_sum(xp: Any, g: Array) -> Array:
    return total(g * g)


def _norm(xp: Any, square_sum: Array) -> Array:
    return xp.sqrt(square_sum)


def _scale(xp: Any, g: Array, norm: Array, limit: Array) -> Array:
    return g * xp.minimum(1.0, limit / (norm + EPS))


def _clamp(xp: Any, g: Array, limit: Array) -> Array:
    return xp.minimum(xp.maximum(g, -limit), limit)
