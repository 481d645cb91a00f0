"""TrainStep: forward, loss, backward, clip, update."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from gpunet.backend import Array, host, place_of
from gpunet.context import Context
from gpunet.errors import ArgumentError
from gpunet.layer import Layer
from gpunet.layers import Sequential, Sigmoid, Softmax
from gpunet.losses import Loss
from gpunet.losses.loss import check_sample_weight
from gpunet.optim import Optimizer
from gpunet.optim.clip import clamp_to, clip_to
from gpunet.parameter import ParameterStore
from gpunet.random import check_key
from gpunet.train.loss_scale import LossScale
from gpunet.train.recorded import Recordings


class TrainStep:
    """One gradient step a call: ``loss = step(x, y)``.

    model       built
    clip_norm   largest global norm of the gradients, or None
    clip_value  largest absolute value of each gradient, or None; not with clip_norm
    accumulate  the batch is run in this many parts under one context, then updated once: less memory, same gradient
    seed        of dropout; with the number of the step, the key of its random numbers
    capture     on a GPU, record the third step with inputs of a shape as one CUDA graph, and launch that from then on;
                the results are the same, bit for bit, for inputs that lie in memory as fresh arrays do

    A call returns the loss as a fresh 0-d array on the device and does not synchronise (with host inputs on a GPU only
    when sixteen batches wait to be copied); float(loss) does. Not for several threads at once.
    ``steps`` counts calls, and may be set. ``loss_scale`` is there for models of dtype "mixed_float16".
    """

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
        seed: int = 0,
        capture: bool = True,
    ):
        if not isinstance(accumulate, int) or accumulate < 1:
            raise ArgumentError(f"accumulate must be a whole number of parts, at least 1, but got {accumulate!r}.")
        check_kinds(model, loss, optimizer)
        check_ending(model, loss)
        loss.check_outputs(model.output_shape)
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.store, self.backend = model.store, model.store.backend
        self.accumulate, self.seed, self.steps = accumulate, seed, 0
        self._norm, self._value = _Limit("clip_norm", self.store), _Limit("clip_value", self.store)
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.loss_scale = LossScale(self.store) if model.dtype == "float16" else None
        self._constants: dict[int, Array] = {}
        self._apart = not self.backend.owns(host().zeros((1,), "float32"))  # arrays of the host are foreign there
        recorder = self.backend.recorder() if capture else None
        self._recordings = None if recorder is None else Recordings(recorder, self._counting)
        self._recorded_with: tuple[Any, ...] = ()
        self._counter = self.backend.scalar(0, "int64")  # the number of the step, on the device
        self._counted: int | None = 0  # what is in it, if that is known
        loss.bind(self.backend)

    @property
    def clip_norm(self) -> float | None:
        """Largest global norm of the gradients, or None."""
        return self._norm.number

    @clip_norm.setter
    def clip_norm(self, norm: float | None) -> None:
        self._norm.set(norm, other=self._value)

    @property
    def clip_value(self) -> float | None:
        """Largest absolute value of each gradient, or None."""
        return self._value.number

    @clip_value.setter
    def clip_value(self, value: float | None) -> None:
        self._value.set(value, other=self._norm)

    def __call__(self, x: Any, y: Any, sample_weight: Any = None) -> Array:
        """Train on one batch of host or device arrays; -> its loss before the update.

        sample_weight  (n,), or of more leading axes: factors of the samples' losses, or None; the mean's n stays

        Raises
            ArgumentError: the batch is empty, or its parts differ in length; ``steps`` is not in [0, 2**32).
            DeviceMemoryError: the GPU has too little memory.
        """
        model, backend, dtype = self.model, self.backend, self.store.dtype
        given = (x, y) if sample_weight is None else (x, y, sample_weight)
        with backend.scope():
            where = backend
            if self._apart and not backend.owns(y):
                if self._recordings is not None and all(map(on_host, given)):
                    where = host()
                elif not on_host(y):
                    y = backend.asarray(y)  # the loss converts what is the host's or the backend's
            x, y = model.convert(x, where), self.loss.convert(y, where, dtype)
            batch: tuple[Array, ...] = (x, y)
            if sample_weight is not None:
                weight = where.asarray(sample_weight, dtype)
                check_sample_weight(tuple(weight.shape), (*weight.shape[:1], *model.output_shape))
                batch = (x, y, weight)
            if not x.shape or x.shape[0] < self.accumulate or not x.shape[:1] == y.shape[:1] == batch[-1].shape[:1]:
                shapes = [
                    f"{n} {tuple(a.shape)}" for n, a in zip(("inputs", "targets", "weights"), batch, strict=False)
                ]
                raise ArgumentError(
                    f"a batch needs as many inputs as targets, and weights if any, and at least "
                    f"accumulate={self.accumulate} of them, but got {' and '.join(shapes)}."
                )
            self.optimizer.prepare(model)
            value = self._work(batch, self.steps) if self._recordings is None else self._run(self._recordings, batch)
        self.steps += 1
        self.optimizer.updates += 1
        return value

    def _work(self, batch: tuple[Array, ...], step: int | None, counter: Array | None = None) -> Array:
        """Everything that the device does in a step."""
        model = self.model
        ctx = model.context(training=True, step=step, seed=self.seed, counter=counter, constants=self._constants)
        value = self._backward(batch, ctx)
        scale = self.loss_scale
        bad = None if scale is None else scale.unscale()
        if self._norm.array is not None:
            clip_to(model, self._norm.array)
        if self._value.array is not None:
            clamp_to(model, self._value.array)
        self.optimizer.apply(model, unless=bad)
        if scale is None or bad is None:
            return value
        value = scale.of_loss(value)
        scale.adjust(bad)
        return value

    def _backward(self, batch: tuple[Array, ...], ctx: Context) -> Array:
        """Gradients of the mean loss over the batch, part by part."""
        if self.accumulate == 1:
            return self._backward_part(batch, None, ctx)
        n, dtype, value = batch[0].shape[0], self.store.dtype, None
        targets = self.loss.prepare(batch[1], self.backend)
        terms = self.loss.count(targets, (n, *self.model.output_shape), dtype)  # of all parts together
        for part in range(self.accumulate):
            rows = slice(n * part // self.accumulate, n * (part + 1) // self.accumulate)
            part_value = self._backward_part(tuple(array[rows, ...] for array in batch), terms, ctx)
            value = part_value if value is None else self.store.fused(_add)(value, part_value)
        return value

    def _backward_part(self, batch: tuple[Array, ...], terms: int | Array | None, ctx: Context) -> Array:
        """Forward, loss, backward."""
        x, y, *weight = batch
        out, saved = self.model.forward(x, ctx)
        scale = None if self.loss_scale is None else self.loss_scale.factor
        value, dy = self.loss(out, y, sample_weight=weight[0] if weight else None, terms=terms, scale=scale)
        self.model.backward(dy, saved, ctx)
        return value

    # ---- as one launch

    def _run(self, recordings: Recordings, batch: tuple[Array, ...]) -> Array:
        """The step from its recording, if there is one by now."""
        model = self.model
        limits = self._norm.array, self._value.array
        made_with = (model.version, self.loss, self.optimizer, *limits, *self.optimizer.schedules)
        if any(a is not b for a, b in zip_longest(made_with, self._recorded_with)):
            recordings.forget()
            self._recorded_with = made_with
        check_key("step", self.steps)
        if self._counted != self.steps:
            self._counter[...] = self.steps
        self._counted = None  # until the work is done
        signature = (*((array.shape, array.dtype) for array in batch), self.accumulate, self.seed)
        recording = recordings.find(signature, batch, model)
        if recording is not None:
            value = recording(*batch)
            self.store.mark_written()
        else:
            value = self._counting(*recordings.recorder.placed(batch), step=self.steps)
        self._counted = self.steps + 1
        return value

    def _counting(self, *batch: Array, step: int | None = None) -> Array:
        """The work, with the step's number on the device, and then the next one there."""
        value = self._work(batch, step, self._counter)
        self._counter += 1
        return value


def check_kinds(model: Any, loss: Any, optimizer: Any) -> None:
    """Refuse classes, names and objects of other libraries."""
    kinds = (
        ("model", model, Sequential, "layers.Sequential(layers.Dense(10))"),
        ("loss", loss, Loss, "losses.CrossEntropy()"),
    )
    for name, given, kind, example in (*kinds, ("optimizer", optimizer, Optimizer, "optim.Adam(1e-3)")):
        if not isinstance(given, kind):
            raise ArgumentError(f"the {name} must be one such as {example}, but got {given!r:.100}.")


def check_ending(model: Sequential, loss: Loss) -> None:
    """Refuse a model that ends with the activation which the loss applies itself."""
    last: Layer = model
    while isinstance(last, Sequential) and last.layers:
        last = last.layers[-1]
    if loss.activation is not None and isinstance(last, Sigmoid | Softmax):
        raise ArgumentError(
            f"{type(loss).__name__} takes logits, but the model ends with {last.title}: it would be applied twice. "
            f"Leave it out; Trainer.predict_proba applies {loss.activation} to outputs."
        )


class _Limit:
    """A number that may be set, as a 0-d array of the device."""

    def __init__(self, name: str, store: ParameterStore):
        self.name, self.store = name, store
        self.number: float | None = None
        self.array: Array | None = None

    def set(self, number: float | None, other: _Limit) -> None:
        """Refuses what is not positive, and a second limit."""
        if number is not None:
            if not number > 0:
                raise ArgumentError(f"{self.name} must be positive or None, but got {number!r}.")
            if other.number is not None:
                raise ArgumentError(f"{self.name} and {other.name} are both set. Use one of them, None for the other.")
        self.number = number
        self.array = None if number is None else self.store.backend.scalar(number, self.store.dtype)


def on_host(x: Any) -> bool:
    """Something that the host turns into an array, or has, or takes from another library."""
    return isinstance(x, list | tuple) or host().owns(x) or place_of(x) == "cpu"


def _add(xp: Any, a: Array, b: Array) -> Array:
    return a + b
