"""JsonlLog."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.errors import FileError
from gpunet.train.callbacks.callback import Callback

if TYPE_CHECKING:
    from gpunet.train.run import Run


class JsonlLog(Callback):
    """Writes a line of JSON for each epoch: {"epoch": 1, "step": 46, "loss": 0.9, …}; NaN and infinities as words.

    A run that goes on drops the lines of epochs that come again, at its first epoch. A new run needs a new file.
    Raises     FileError: the file cannot be written, or is the log of another run.
    """

    def __init__(self, path: Any):
        self.path = Path(path)

    def on_begin(self, run: Run) -> None:
        """Refuse what could not be written; nothing is changed yet."""
        self._begun = False
        if not self.path.parent.is_dir() or self.path.is_dir():
            raise FileError(f"the log {self.path} cannot be written: choose a file in a folder that is there.")
        if not run.epoch and self._lines():
            raise FileError(f"{self.path} is the log of another run. Choose another file, or resume that run.")

    def on_epoch(self, run: Run, record: dict[str, float]) -> None:
        """One line more."""
        line = {"epoch": run.epoch, "step": run.step.steps} | {
            name: value if value - value == 0 else str(value) for name, value in record.items()
        }
        try:
            if not self._begun:
                kept = [line for line in self._lines() if _epoch(line) < run.epoch]
                temporary = self.path.with_name(f".{self.path.name}.tmp")
                temporary.write_text("".join(f"{line}\n" for line in kept))
                os.replace(temporary, self.path)  # whole or not at all: a kill loses no line
                self._begun = True
            with self.path.open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise FileError(
                f"the log {self.path} cannot be written: {error}. Make room, or its folder anew."
            ) from error

    def _lines(self) -> list[str]:
        """Of the file, if there is one."""
        try:
            return self.path.read_text().splitlines() if self.path.exists() else []
        except (OSError, UnicodeError) as error:
            raise FileError(f"the log {self.path} cannot be read: {error}. Choose another file.") from error


def _epoch(line: str) -> float:
    """Of a line; infinite for one that was not written to its end."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):
        return float("inf")
