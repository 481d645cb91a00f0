"""LossScale: keeps the gradients of float16 within its range."""

from __future__ import annotations

from typing import Any

from gpunet.backend import Array, host
from gpunet.formula import total
from gpunet.parameter import ParameterStore

INITIAL, GROWTH, BACKOFF, INTERVAL = 65536.0, 2.0, 0.5, 2000
"""PyTorch's values."""


class LossScale:
    """A factor of the loss, and so of all gradients, that follows what float16 can hold. All of it is on the device.

    A step whose gradients are not all finite is left out, and the factor is halved; after 2000 good steps in a row it
    is doubled. Factors are powers of two, so scaling rounds nothing.

    factor  0-d array
    good    good steps since the factor was changed, 0-d array

    Reference: Micikevicius et al.: Mixed Precision Training (2018).
    """

    def __init__(self, store: ParameterStore):
        self.store = store
        self.factor, self.good = store.backend.scalar(INITIAL, store.dtype), store.backend.scalar(0.0, store.dtype)

    def get_state(self) -> dict[str, Any]:
        """Both numbers, for a checkpoint. Synchronises."""
        to_numpy = self.store.backend.to_numpy
        return {"factor": host().xp.array(to_numpy(self.factor)), "good": host().xp.array(to_numpy(self.good))}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue from what ``get_state`` returned."""
        for name, target in (("factor", self.factor), ("good", self.good)):
            target[...] = self.store.backend.asarray(state[name], self.store.dtype)

    def unscale(self) -> Array:
        """Divide the gradients by the factor; -> how many are not finite, 0-d."""
        gradients = self.store.grads[: self.store.trainable_end]
        self.store.finish()
        _, bad = self.store.fused(_unscaled)(gradients, self.factor, out=(gradients, None))
        return bad

    def adjust(self, bad: Array) -> None:
        """Follow the step that had so many gradients which are not finite."""
        self.store.fused(_adjusted)(self.factor, self.good, bad, out=(self.factor, self.good))

    def of_loss(self, value: Array) -> Array:
        """A loss that was computed with the factor, without it."""
        return self.store.fused(_divided)(value, self.factor)


def _unscaled(xp: Any, g: Array, factor: Array) -> tuple[Array, Array]:
    return g / factor, total(xp.where(xp.isfinite(g), 0.0, 1.0))


def _adjusted(xp: Any, factor: Array, good: Array, bad: Array) -> tuple[Array, Array]:
    full = good + 1 >= INTERVAL
    grown = xp.where(full & xp.isfinite(factor * GROWTH), factor * GROWTH, factor)
    return xp.where(bad > 0, factor * BACKOFF, grown), xp.where((bad > 0) | full, 0.0, good + 1)


def _divided(xp: Any, value: Array, factor: Array) -> Array:
    return value / factor
