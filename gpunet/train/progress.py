"""Progress of a training run on standard error: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Context manager; ``advance`` after each batch, ``epoch_done`` after each epoch.

    epochs   the number of the last one
    samples  in all epochs to come, or None: not known
    """

    def __init__(self, epochs: int, samples: int | None, enabled: bool):
        self.epochs, self.enabled = epochs, enabled
        self._bar: Any = None
        if enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            words = "{task.description}", "{task.fields[figures]}", "{task.fields[speed]}"
            first, figures, speed = (TextColumn(text) for text in words)
            columns = [first, BarColumn(), speed, TimeRemainingColumn(), figures]
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("training", total=samples, figures="", speed="")

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, samples: int) -> None:
        """One batch is done."""
        if self._bar is not None:
            speed = self._bar.tasks[0].speed
            self._bar.update(self._task, advance=samples, speed=f"{speed:,.0f} samples/s" if speed else "")

    def epoch_done(self, epoch: int, record: dict[str, float]) -> None:
        """Print the figures of an epoch, which counts from 1."""
        if not self.enabled:
            return
        figures = "  ".join(f"{name} {value:.4f}" for name, value in record.items())
        line = f"epoch {epoch}/{self.epochs}  {figures}"
        if self._bar is not None:
            self._bar.update(self._task, figures=figures)
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)
