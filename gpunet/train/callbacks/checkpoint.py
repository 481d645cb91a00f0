"""Checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.errors import ArgumentError, FileError
from gpunet.train.callbacks.callback import Callback, Monitor
from gpunet.train.checkpoint import SUFFIX, in_order, save, stale, steps_of
from gpunet.train.interrupt import Stopped

if TYPE_CHECKING:
    from gpunet.train.run import Run


class Checkpoint(Callback):
    """Writes checkpoints to a folder, from which ``fit(resume=folder)`` goes on with the same bits.

    path          the folder; it is made if it is not there. Files are called step-00000123.checkpoint
    every_steps   after so many steps, or None
    every_epochs  after so many epochs, or None
    keep_last     how many of the newest stay
    keep_best     a figure such as "val_loss": the best epoch stays, as best.checkpoint
    Raises        ArgumentError: a number < 1, or nothing is to be written.   FileError: the folder cannot be used.

    Going on from an older one renames the newer ones to abandoned-…
    Each file is written whole or not at all; a kill at any moment leaves the ones before. Ctrl-C writes one, too.
    """

    last = True  # the state of the other callbacks is a part of it

    def __init__(
        self,
        path: Any,
        *,
        every_steps: int | None = None,
        every_epochs: int | None = 1,
        keep_last: int = 3,
        keep_best: str | None = None,
    ):
        numbers = {"every_steps": every_steps, "every_epochs": every_epochs, "keep_last": keep_last}
        for name, number in numbers.items():
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ArgumentError(f"Checkpoint needs a whole {name}, at least 1, but got {number!r}.")
        if every_steps is None and every_epochs is None:
            raise ArgumentError(
                "Checkpoint needs every_steps or every_epochs, but got None for both. Try every_epochs=1."
            )
        self.folder = Path(path)
        self.every_steps, self.every_epochs, self.keep_last = every_steps, every_epochs, keep_last
        self.monitor = None if keep_best is None else Monitor(keep_best)

    def on_begin(self, run: Run) -> None:
        """Make the folder; a run that starts anew does not mix with an old one's checkpoints."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"the folder {self.folder} cannot be made: {error}. Choose another.") from error
        for path in stale(self.folder):
            path.unlink(missing_ok=True)
        if run.step.steps == 0 and in_order(self.folder):
            raise FileError(
                f"there are checkpoints of another run in {self.folder}. Go on with it by resume={str(self.folder)!r}, "
                "or choose an empty folder."
            )
        for path in in_order(self.folder):
            if steps_of(path) > run.step.steps:  # of a run that went on from here before: resume must not find it
                path.rename(path.with_name(path.name.replace("step-", "abandoned-")))

    def on_step(self, run: Run) -> None:
        """Every so many steps."""
        if self.every_steps is not None and run.step.steps % self.every_steps == 0:
            self.write(run)

    def on_epoch(self, run: Run, record: dict[str, float]) -> None:
        """Every so many epochs, and the best one."""
        if self.monitor is not None and self.monitor.better(record):
            save(run, self.folder / f"best{SUFFIX}")  # first: the other one says that it is there
        if self.every_epochs is not None and run.epoch % self.every_epochs == 0:
            self.write(run)

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """After Ctrl-C, where it stands; not in the midst of a step, which a second one breaks off."""
        if isinstance(error, Stopped) and run.step.steps:
            self.write(run)

    def write(self, run: Run) -> None:
        """A checkpoint now; then those go that are no longer among the newest."""
        save(run, self.folder / f"step-{run.step.steps:08}{SUFFIX}")
        for path in in_order(self.folder)[: -self.keep_last]:
            path.unlink(missing_ok=True)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The best figure."""
        return {"best": None if self.monitor is None else self.monitor.best}, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Continue."""
        if self.monitor is not None:
            self.monitor.best = state["best"]
