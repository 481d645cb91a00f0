"""Training steps that are recorded once and run as one launch, where launches cost more than the work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from gpunet.backend import Array, Recorder
from gpunet.layer import Layer, everything

WARM_UP = 2
"""Steps that run as they are before one is recorded: kernels are compiled, plans are made."""
MOST, IDLE = 4, 100
"""Signatures that are recorded at a time; one gives way to another when it has not been used for 100 steps."""
MOST_SEEN = 1000
"""Signatures that are counted."""


class Recordings:
    """One recording for each signature of a step.

    work  what is recorded: a function of the inputs, with one result
    """

    def __init__(self, recorder: Recorder, work: Callable[..., Array]):
        self.recorder, self.work = recorder, work
        self._steps = 0
        self._seen: dict[Any, int] = {}
        self._made: dict[Any, Callable[..., Array] | None] = {}
        self._last: dict[Any, int] = {}  # the step that used a recording last
        self._told: set[str] = set()

    def find(self, signature: Any, inputs: tuple[Array, ...], model: Layer) -> Callable[..., Array] | None:
        """The recording for a signature, made now if it has been seen often enough; None: run the work as it is."""
        self._steps += 1
        if signature not in self._made:
            if len(self._seen) >= MOST_SEEN:
                self._seen.clear()
            seen = self._seen[signature] = self._seen.get(signature, 0) + 1
            if seen <= WARM_UP or not self._has_room():
                return None
            self._made[signature] = self._new(inputs, model)
        self._last[signature] = self._steps
        return self._made[signature]

    def forget(self) -> None:
        """Drop all recordings: what they read and wrote is elsewhere now."""
        self._seen.clear()
        self._made.clear()
        self._last.clear()

    def _has_room(self) -> bool:
        """May one more be recorded? One that was not used for long gives way."""
        recorded = [signature for signature, made in self._made.items() if made is not None]
        if len(recorded) < MOST:
            return True
        oldest = min(recorded, key=lambda signature: self._last[signature])
        if self._steps - self._last[oldest] <= IDLE:
            self._tell(f"inputs of more than {MOST} shapes or types take turns. Pad the batches, or drop the last one.")
            return False
        del self._made[oldest]
        self._seen.pop(oldest, None)
        return True

    def _new(self, inputs: tuple[Array, ...], model: Layer) -> Callable[..., Array] | None:
        if unfit := next((layer for layer in everything(model) if not layer.capturable), None):
            self._tell(f"{unfit.title} says that it cannot be captured.")
            return None
        try:
            return self.recorder.record(self.work, inputs)
        except Exception as error:  # whatever a layer raises when the device refuses to wait for it
            self._tell(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
            return None

    def _tell(self, reason: str) -> None:
        """Say why steps run kernel by kernel, once for each reason, at the caller of the step."""
        if reason not in self._told:
            self._told.add(reason)
            warnings.warn(
                f"training steps are not captured as one graph, which costs time but changes nothing: {reason} "
                "TrainStep(capture=False) turns this off.",
                stacklevel=6,
            )
