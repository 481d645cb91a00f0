"""ReduceOnPlateau."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunet.errors import ArgumentError
from gpunet.train.callbacks.callback import Monitor, Remembering

if TYPE_CHECKING:
    from gpunet.train.run import Run


class ReduceOnPlateau(Remembering):
    """Multiplies the learning rate by a factor when a figure has not become better for some epochs.

    monitor, min_delta, mode  the figure, what counts as better, and the direction: "min", "max" or "auto"
    factor                    in (0, 1)
    patience                  epochs without a better one, after which it is reduced
    lowest                    the learning rate at which it stays
    Raises                    ArgumentError: a number outside its range; the learning rate is a schedule or a function.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        *,
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str = "auto",
        lowest: float = 0.0,
    ):
        if not 0 < factor < 1:
            raise ArgumentError(f"ReduceOnPlateau needs factor in (0, 1), but got {factor!r}. 0.1 is usual.")
        if not patience >= 1 or not lowest >= 0:
            raise ArgumentError(
                f"ReduceOnPlateau needs patience >= 1 and lowest >= 0, but got {patience!r}, {lowest!r}."
            )
        self.factor, self.patience, self.lowest = factor, patience, lowest
        self.monitor, self.waited = Monitor(monitor, min_delta, mode), 0

    def on_begin(self, run: Run) -> None:
        """Refuse a learning rate that has a course of its own."""
        super().on_begin(run)
        if callable(run.step.optimizer.learning_rate):
            raise ArgumentError(
                f"ReduceOnPlateau sets the learning rate, but that is {run.step.optimizer.learning_rate!r}. "
                "Use a number."
            )

    def reset(self) -> None:
        """Before the first epoch."""
        self.monitor.best, self.waited = None, 0

    def on_epoch(self, run: Run, record: dict[str, float]) -> None:
        """Wait, or reduce."""
        if self.monitor.better(record):
            self.waited = 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            self.waited = 0
            optimizer = run.step.optimizer
            rate = optimizer.learning_rate
            assert not callable(rate)  # refused at the beginning
            optimizer.learning_rate = min(rate, max(rate * self.factor, self.lowest))

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Best figure, epochs waited."""
        return {"best": self.monitor.best, "waited": self.waited}, {}

    def restore(self, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Continue."""
        self.monitor.best, self.waited = state["best"], state["waited"]
