"""Gradient clipping."""

from __future__ import annotations

from typing import Any

from gpunet.backend import Array
from gpunet.errors import ArgumentError
from gpunet.formula import total
from gpunet.layers.sequential import Sequential

EPS = 1e-6
"""Keeps the factor finite for a zero gradient; PyTorch's value."""


def clip(model: Sequential, *, norm: float) -> Array:
    """Scale all gradients so that their global norm is at most ``norm``; -> the norm before, 0-d, on the device.

    Forward    N = √Σ g²      g ← g min(1, norm / (N + 1e-6))

    A norm of NaN makes all gradients NaN, as in PyTorch. Nothing synchronises.
    Raises     ArgumentError: norm is not positive.

    Reference: Pascanu, Mikolov, Bengio: On the Difficulty of Training Recurrent Neural Networks (2013).
    """
    if not norm > 0:
        raise ArgumentError(f"the largest norm must be positive, but got {norm!r}.")
    return clip_to(model, model.store.backend.scalar(norm, model.store.dtype))


def clip_to(model: Sequential, limit: Array) -> Array:
    """As ``clip``, to a 0-d array of the device, so that nothing comes from the host."""
    store = model.store
    store.finish()
    gradients = store.grads[: store.trainable_end]
    size = store.fused(_norm)(store.fused(_square_sum)(gradients))
    store.fused(_scale)(gradients, size, limit, out=gradients)
    return size


def _square_sum(xp: Any, g: Array) -> Array:
    return total(g * g)


def _norm(xp: Any, square_sum: Array) -> Array:
    return xp.sqrt(square_sum)


def _scale(xp: Any, g: Array, norm: Array, limit: Array) -> Array:
    return g * xp.minimum(1.0, limit / (norm + EPS))
