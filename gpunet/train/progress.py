"""Progress of a training run on standard error: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Context manager; ``advance`` after each batch, ``epoch_done`` after each epoch."""

    def __init__(self, epochs: int, batches: int, enabled: bool):
        self.epochs, self.batches, self.enabled = epochs, batches, enabled
        self._bar: Any = None
        if enabled and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("training", total=epochs * batches)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self) -> None:
        """One batch is done."""
        if self._bar is not None:
            self._bar.advance(self._task)

    def epoch_done(self, epoch: int, record: dict[str, float]) -> None:
        """Print the epoch's figures."""
        if not self.enabled:
            return
        line = f"epoch {epoch + 1}/{self.epochs}  " + "  ".join(f"{name} {value:.4f}" for name, value in record.items())
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)
