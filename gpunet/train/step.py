"""TrainStep: forward, loss, backward, clip, update."""

from __future__ import annotations

from typing import Any

from gpunet.backend import Array, host
from gpunet.errors import ArgumentError
from gpunet.layer import Context
from gpunet.layers.sequential import Sequential
from gpunet.losses import Loss
from gpunet.optim import Optimizer
from gpunet.optim.clip import clip_to
from gpunet.train.loss_scale import LossScale
from gpunet.train.recorded import Recordings


class TrainStep:
    """One gradient step a call: ``loss = step(x, y)``.

    model       built
    clip_norm   largest global norm of the gradients, or None
    accumulate  the batch is run in this many parts under one context, then updated once: less memory, same gradient
    seed        of dropout; with the number of the step, the key of its random numbers
    capture     on a GPU, record the third step with inputs of a shape as one CUDA graph, and launch that from then on;
                the results are the same, bit for bit

    A call returns the loss as a fresh 0-d array on the device and never synchronises; float(loss) does.
    ``steps`` counts calls, and may be set. ``loss_scale`` is there for models of dtype "mixed_float16".
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
        capture: bool = True,
    ):
        if clip_norm is not None and not clip_norm > 0:
            raise ArgumentError(f"clip_norm must be positive or None, but got {clip_norm!r}.")
        if not isinstance(accumulate, int) or accumulate < 1:
            raise ArgumentError(f"accumulate must be a whole number of parts, at least 1, but got {accumulate!r}.")
        self.model, self.optimizer, self.backend = model, optimizer, model.store.backend
        self.loss = loss.bind(self.backend)
        self.accumulate, self.seed, self.steps = accumulate, seed, 0
        self._limit = None if clip_norm is None else self.backend.scalar(clip_norm, model.store.dtype)
        self.loss_scale = LossScale(model.store) if model.dtype == "float16" else None
        self._constants: dict[int, Array] = {}
        recorder = self.backend.recorder() if capture else None
        self._recordings = None if recorder is None else Recordings(recorder, self._counting)
        self._version = model.version
        self._counter, self._counted = self.backend.scalar(0, "int64"), 0  # the number of the step, on the device

    def __call__(self, x: Any, y: Any) -> Array:
        """Train on one batch of host or device arrays; -> its loss before the update.

        Raises
            ArgumentError: the batch is empty, or x and y differ in length.
        """
        model, backend = self.model, self.backend
        stay = self._recordings is not None and not (backend.owns(x) or backend.owns(y))  # recorded work copies them
        where = host() if stay else backend
        x, y = where.asarray(x, model.dtype), self.loss.convert(y, where, model.store.dtype)
        if x.shape[:1] != y.shape[:1] or not x.shape or x.shape[0] < self.accumulate:
            raise ArgumentError(
                f"a batch needs as many inputs as targets and at least accumulate={self.accumulate} of them, "
                f"but got inputs {tuple(x.shape)} and targets {tuple(y.shape)}."
            )
        with backend.scope():
            self.optimizer.prepare(model)
            value = self._work(x, y, self.steps) if self._recordings is None else self._run(self._recordings, x, y)
        self.steps += 1
        return value

    def _work(self, x: Array, y: Array, step: int | None, counter: Array | None = None) -> Array:
        """Everything that the device does in a step."""
        model = self.model
        ctx = model.context(training=True, step=step, seed=self.seed, counter=counter, constants=self._constants)
        value = self._backward(x, y, ctx)
        scale = self.loss_scale
        bad = None if scale is None else scale.unscale()
        if self._limit is not None:
            clip_to(model, self._limit)
        self.optimizer.apply(model, unless=bad)
        if scale is None or bad is None:
            return value
        value = scale.of_loss(value)
        scale.adjust(bad)
        return value

    def _backward(self, x: Array, y: Array, ctx: Context) -> Array:
        """Gradients of the mean loss over the batch, part by part."""
        n, value = x.shape[0], None
        for part in range(self.accumulate):
            rows = slice(n * part // self.accumulate, n * (part + 1) // self.accumulate)
            out, saved = self.model.forward(x[rows, ...] if self.accumulate > 1 else x, ctx)
            terms = self.loss.terms((n, *out.shape[1:]))
            targets = y[rows, ...] if self.accumulate > 1 else y
            if self.loss_scale is None:
                part_value, dy = self.loss(out, targets, terms=terms)
            else:
                part_value, dy = self.loss(out, targets, terms=terms, scale=self.loss_scale.factor)
            self.model.backward(dy, saved, ctx)
            value = part_value if value is None else self.model.store.fused(_add)(value, part_value)
        return value

    # ---- as one launch

    def _run(self, recordings: Recordings, x: Array, y: Array) -> Array:
        """The step from its recording, if there is one by now."""
        if self._version != self.model.version:
            recordings.forget()
            self._version = self.model.version
        if self._counted != self.steps:
            self._counter[...] = self.steps
        signature = (x.shape, x.dtype, y.shape, y.dtype, self.accumulate, self.seed)
        recording = recordings.find(signature, (x, y), self.model)
        if recording is not None:
            value = recording(x, y)
        else:
            x, y = recordings.recorder.placed((x, y))
            value = self._counting(x, y, self.steps)
        self._counted = self.steps + 1
        return value

    def _counting(self, x: Array, y: Array, step: int | None = None) -> Array:
        """The work, with the step's number on the device, and then the next one there."""
        value = self._work(x, y, step, self._counter)
        self._counter += 1
        return value


def _add(xp: Any, a: Array, b: Array) -> Array:
    return a + b
