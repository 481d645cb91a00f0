"""JsonlLog."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.errors import FileError
from gpunet.train.callbacks.callback import Callback

if TYPE_CHECKING:
    from gpunet.train.run import Run


class JsonlLog(Callback):
    """Writes a line of JSON for each epoch: {"epoch": 1, "step": 46, "loss": 0.9, …}; NaN and infinities as words.

    A run that is continued from a checkpoint drops the lines of epochs that come again.
    Raises     FileError: the file cannot be written.
    """

    def __init__(self, path: Any):
        self.path = Path(path)

    def on_begin(self, run: Run) -> None:
        """Keep the lines of the epochs so far, of a run that is continued."""
        try:
            kept = []
            if run.epoch and self.path.exists():
                kept = [line for line in self.path.read_text().splitlines() if _epoch(line) <= run.epoch]
            self.path.write_text("".join(f"{line}\n" for line in kept))
        except OSError as error:
            raise FileError(
                f"the log {self.path} cannot be written: {error}. Choose a file in a folder that is there."
            ) from error

    def on_epoch(self, run: Run, record: dict[str, float]) -> None:
        """One line more."""
        line = {"epoch": run.epoch, "step": run.step.steps} | {
            name: value if value - value == 0 else str(value) for name, value in record.items()
        }
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def _epoch(line: str) -> float:
    """Of a line; infinite for one that was not written to its end."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
