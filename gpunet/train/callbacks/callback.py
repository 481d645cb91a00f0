"""Callback: what happens besides training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from gpunet.errors import ArgumentError

if TYPE_CHECKING:
    from gpunet.train.run import Run


class Callback:
    """Base of callbacks. Three moments: after a step, after an epoch, at the end; and before the first. All do nothing.

    last  comes after the others: what it does reads theirs
    """

    last: ClassVar[bool] = False

    def on_begin(self, run: Run) -> None:
        """Before the first step, also of a run that is continued."""

    def on_step(self, run: Run) -> None:
        """After a step: ``run.losses[-1]`` is its loss, on the device, ``run.batch`` its batch."""

    def on_epoch(self, run: Run, record: dict[str, float]) -> None:
        """After an epoch, with its figures."""

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """After the last epoch; or with the error that ended the run, KeyboardInterrupt among them."""

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a checkpoint keeps of it: for JSON, and host arrays."""
        return {}, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Continue from what ``state`` returned."""


class Remembering(Callback):
    """Base of callbacks that compare epochs: used again for another model, they begin anew."""

    _of: Any = None

    def on_begin(self, run: Run) -> None:
        """Forget what was of another model."""
        if self._of is not None and self._of is not run.step:
            self.reset()
        self._of = run.step

    def reset(self) -> None:
        """As it was made."""
        raise NotImplementedError(f"{type(self).__name__} does not define reset")


class Monitor:
    """Watches one figure of the epochs.

    name       such as "val_loss"
    min_delta  what counts as better, at least
    mode       "min", "max", or "auto": max for accuracy and the like, min for all others
    """

    LARGER = ("accuracy", "precision", "recall", "f1", "r2", "top_")

    def __init__(self, name: str, min_delta: float = 0.0, mode: str = "auto"):
        if not isinstance(name, str):
            raise ArgumentError(f"a callback watches a figure by its name, such as 'val_loss', but got {name!r}.")
        if mode not in ("auto", "min", "max"):
            raise ArgumentError(f"mode must be 'auto', 'min' or 'max', but got {mode!r}.")
        if not min_delta >= 0:
            raise ArgumentError(f"min_delta must be >= 0, but got {min_delta!r}.")
        larger = name.removeprefix("val_").startswith(self.LARGER) if mode == "auto" else mode == "max"
        self.name, self.min_delta, self.sign = name, min_delta, 1 if larger else -1
        self.best: float | None = None

    def better(self, record: dict[str, float]) -> bool:
        """Is this the best epoch so far? NaN never is.

        Raises
            ArgumentError: the epoch has no such figure.
        """
        if self.name not in record:
            raise ArgumentError(
                f"there is no '{self.name}' to watch, only {', '.join(record)}. "
                "Give fit validation_data, or watch one of these."
            )
        value = record[self.name]
        if value != value or (self.best is not None and not self.sign * (value - self.best) > self.min_delta):
            return False
        self.best = value
        return True
