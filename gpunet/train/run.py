"""Run: where a training run stands, as callbacks see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from numbers import Real
from typing import Any

from gpunet.backend import Array, host
from gpunet.train.callbacks.callback import Callback
from gpunet.train.history import History
from gpunet.train.step import TrainStep, on_host


class Run:
    """Where a training run stands. ``Trainer.fit`` makes one; a loop of your own does it like this::

        run = Run(step, callbacks=[EarlyStopping(patience=3)])
        with run:
            while run.epoch < 20 and not run.stopped:
                for x, y in batches:
                    run.after_step(step(x, y), (x, y))
                run.after_epoch({"loss": run.loss(), "val_loss": ...})

    step        the TrainStep; model and optimizer are its own
    history     records of all epochs
    epoch       the number of epochs done, which is that of the present one
    batches     how many of its batches are done
    stopped     set by a callback: the loop shall end
    batch       the last one, (x, y) or (x, y, sample_weight)
    first, plan  the epoch that the loop began with; what must be the same for a checkpoint to fit
    """

    def __init__(self, step: TrainStep, *, callbacks: Sequence[Callback] = (), history: History | None = None):
        self.step, self.history = step, History() if history is None else history
        self.callbacks = sorted(callbacks, key=lambda callback: callback.last)
        self.epoch = self.first = len(self.history)
        self.losses: list[Array | float] = []
        self.shares: list[float] = []
        self.batch: tuple[Any, ...] = ()
        self.stopped = False
        self.plan: dict[str, Any] = {"settings": settings(step.optimizer), "loss": settings(step.loss)}

    @property
    def batches(self) -> int:
        """How many batches of the present epoch are done."""
        return len(self.losses)

    def loss(self) -> float:
        """Mean over the present epoch, weighted by what counts of each batch. Synchronises: once an epoch."""
        self.losses = [float(loss) for loss in self.losses]
        whole = sum(self.shares)
        return sum(v * n for v, n in zip(self.losses, self.shares, strict=True)) / whole if whole else 0.0

    def after_step(self, loss: Array, batch: tuple[Any, ...]) -> None:
        """Tell the callbacks of a step with a batch."""
        self.losses.append(loss)
        target = batch[1]
        share = self.step.loss.share(host().asarray(target)) if on_host(target) else float(len(target))
        self.shares.append(share)
        self.batch = batch
        for callback in self.callbacks:
            callback.on_step(self)

    def after_epoch(self, record: dict[str, float]) -> None:
        """Tell the callbacks of an epoch and its figures."""
        self.history.append(record)
        self.epoch, self.losses, self.shares = self.epoch + 1, [], []
        for callback in self.callbacks:
            callback.on_epoch(self, record)

    def __enter__(self) -> Run:
        for callback in self.callbacks:
            callback.on_begin(self)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        for callback in self.callbacks:
            callback.on_end(self, error)


def settings(one: Any) -> dict[str, str]:
    """The constructor's arguments of an optimizer or a loss, as words; functions by their names."""

    def word(value: Any) -> str:
        text = value.__qualname__ if hasattr(value, "__qualname__") else repr(value)
        return type(value).__name__ if " at 0x" in text else text  # an address is another one each time

    given = {f.name: getattr(one, f.name) for f in fields(one) if f.init}
    if isinstance(given.get("learning_rate"), Real):
        given["learning_rate"] = "a number"  # which callbacks may have changed: checkpoints keep it by itself
    return {"class": type(one).__name__} | {name: word(value) for name, value in given.items()}
