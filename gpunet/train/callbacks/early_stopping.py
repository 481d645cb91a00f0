"""EarlyStopping."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpunet.errors import ArgumentError
from gpunet.train.callbacks.callback import Monitor, Remembering

if TYPE_CHECKING:
    from gpunet.train.run import Run


class EarlyStopping(Remembering):
    """Stops when a figure has not become better for some epochs, and restores the weights of the best one.

    monitor, min_delta, mode  the figure, what counts as better, and the direction: "min", "max" or "auto"
    patience                  epochs without a better one, after which it stops
    Raises                    ArgumentError: patience < 1; at the first epoch, if it has no such figure.

    The best weights are restored at the end, also if the run is not stopped early; not after an error.

    Reference: Prechelt: Early Stopping - But When? (1998).
    """

    def __init__(self, monitor: str = "val_loss", *, patience: int = 5, min_delta: float = 0.0, mode: str = "auto"):
        if not patience >= 1:
            raise ArgumentError(f"EarlyStopping needs patience >= 1, but got {patience!r}. 5 is usual.")
        self.patience, self.monitor = patience, Monitor(monitor, min_delta, mode)
        self.reset()

    def reset(self) -> None:
        """Before the first epoch."""
        self.monitor.best = None
        self.waited, self.best_weights = 0, dict[str, Any]()

    def on_epoch(self, run: Run, record: dict[str, float]) -> None:
        """Keep the best weights, or wait."""
        if self.monitor.better(record):
            self.waited, self.best_weights = 0, run.step.model.get_weights()
        else:
            self.waited += 1
            run.stopped = run.stopped or self.waited >= self.patience

    def on_end(self, run: Run, error: BaseException | None) -> None:
        """Restore the best weights."""
        if error is None and self.best_weights:
            run.step.model.set_weights(self.best_weights)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Best figure, epochs waited; best weights."""
        return {"best": self.monitor.best, "waited": self.waited}, self.best_weights

    def restore(self, state: dict[str, Any], arrays: dict[str, Any]) -> None:
        """Continue."""
        self.monitor.best, self.waited, self.best_weights = state["best"], state["waited"], arrays
