"""Averaged weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpunet.backend import Array
from gpunet.errors import ArgumentError
from gpunet.layers.sequential import Sequential


class AverageWeights:
    """Exponential moving average of a model's parameters, which often does better than the last ones.

    Update     a ← decay a + (1 - decay) p
    Raises     ArgumentError: decay outside [0, 1).

    It starts with the parameters as they are. Call ``update()`` after each step, and evaluate inside ``applied()``.
    States, such as running statistics of BatchNorm, are not averaged: they are averages themselves.

    Reference: Polyak, Juditsky: Acceleration of Stochastic Approximation by Averaging (1992).
    """

    def __init__(self, model: Sequential, decay: float = 0.999):
        if not 0 <= decay < 1:
            raise ArgumentError(f"AverageWeights needs decay in [0, 1), but got {decay!r}. The default is 0.999.")
        self.model, self._decay = model, decay
        store = model.store
        self._version, self._offsets = store.version, dict(store.offsets)
        with store.backend.scope():
            self._share = store.backend.scalar(1 - decay, store.dtype)
            self._values = store.moved(store.values, self._offsets)

    @property
    def decay(self) -> float:
        """What it was made with."""
        return self._decay

    def update(self) -> None:
        """One step of the average. Does not synchronise."""
        store = self.model.store
        with store.backend.scope():
            values = self._laid_out()
            store.fused(_average)(values, store.values, self._share, out=values)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged parameters inside, and its own ones again afterwards."""
        store = self.model.store
        with store.backend.scope():
            own, offsets = store.moved(store.values, store.offsets), dict(store.offsets)
            store.values[...] = self._laid_out()
            store.refresh()
        try:
            yield
        finally:
            with store.backend.scope():
                store.values[...] = store.moved(own, offsets)  # freezing may have laid the parameters out anew
                store.refresh()

    def get_weights(self) -> dict[str, Any]:
        """The averages as host arrays by name, and the model's states: what ``set_weights`` takes."""
        with self.applied():
            return self.model.get_weights()

    def _laid_out(self) -> Array:
        """The averages, flat, as the model's parameters lie now."""
        store = self.model.store
        if self._version != store.version:
            self._values = store.moved(self._values, self._offsets)
            self._version, self._offsets = store.version, dict(store.offsets)
        return self._values


def _average(xp: Any, average: Array, value: Array, share: Array) -> Array:
    """a + (1 - decay) (p - a): exact where both are equal"""
    return average + share * (value - average)
