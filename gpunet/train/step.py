"""TrainStep: forward, loss, backward, clip, update."""

from __future__ import annotations

from typing import Any

from gpunet.backend import Array
from gpunet.errors import ArgumentError
from gpunet.layers.sequential import Sequential
from gpunet.losses import Loss
from gpunet.optim import Optimizer, clip


class TrainStep:
    """One gradient step a call: ``loss = step(x, y)``.

    model       built
    clip_norm   largest global norm of the gradients, or None
    accumulate  the batch is run in this many parts under one context, then updated once: less memory, same gradient
    seed        of dropout; with the number of the step, the key of its random numbers

    A call returns the loss as a fresh 0-d array on the device and never synchronises; float(loss) does.
    """

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        accumulate: int = 1,
        seed: int = 0,
    ):
        if clip_norm is not None and not clip_norm > 0:
            raise ArgumentError(f"clip_norm must be positive or None, but got {clip_norm!r}.")
        if not isinstance(accumulate, int) or accumulate < 1:
            raise ArgumentError(f"accumulate must be a whole number of parts, at least 1, but got {accumulate!r}.")
        self.model, self.loss, self.optimizer = model, loss.bind(model.store.backend), optimizer
        self.clip_norm, self.accumulate, self.seed = clip_norm, accumulate, seed
        self.steps = 0

    def __call__(self, x: Any, y: Any) -> Array:
        """Train on one batch of host or device arrays; -> its loss before the update.

        Raises
            ArgumentError: the batch is empty, or x and y differ in length.
        """
        model, backend = self.model, self.model.store.backend
        x, y = backend.asarray(x, model.dtype), self.loss.upload(y, backend, model.dtype)
        if x.shape[:1] != y.shape[:1] or not x.shape or x.shape[0] < self.accumulate:
            raise ArgumentError(
                f"a batch needs as many inputs as targets and at least accumulate={self.accumulate} of them, "
                f"but got inputs {tuple(x.shape)} and targets {tuple(y.shape)}."
            )
        with backend.scope():
            ctx = model.context(training=True, step=self.steps, seed=self.seed)
            value = self._backward(x, y, ctx)
            if self.clip_norm is not None:
                clip(model, norm=self.clip_norm)
            self.optimizer.update(model)
        self.steps += 1
        return value

    def _backward(self, x: Array, y: Array, ctx: Any) -> Array:
        """Gradients of the mean loss over the batch, part by part."""
        n, value = x.shape[0], None
        for part in range(self.accumulate):
            rows = slice(n * part // self.accumulate, n * (part + 1) // self.accumulate)
            out, saved = self.model.forward(x[rows, ...] if self.accumulate > 1 else x, ctx)
            terms = self.loss.terms((n, *out.shape[1:]))
            part_value, dy = self.loss(out, y[rows, ...] if self.accumulate > 1 else y, terms=terms)
            self.model.backward(dy, saved, ctx)
            value = part_value if value is None else self.model.store.fused(_add)(value, part_value)
        return value


def _add(xp: Any, a: Array, b: Array) -> Array:
    return a + b
