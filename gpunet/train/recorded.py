"""Training steps that are recorded once and run as one launch, where launches cost more than the work."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from gpunet.backend import Array, Recorder
from gpunet.layer import Layer

WARM_UP = 2
"""Steps that run as they are before one is recorded: kernels are compiled, plans are made."""
MOST = 4
"""Signatures that are recorded; others run as they are."""


class Recordings:
    """One recording for each signature of a step.

    work  what is recorded: a function of the inputs, with one result
    """

    def __init__(self, recorder: Recorder, work: Callable[..., Array]):
        self.recorder, self.work = recorder, work
        self._seen: dict[Any, int] = {}
        self._made: dict[Any, Callable[..., Array] | None] = {}
        self._told: set[str] = set()

    def find(self, signature: Any, inputs: tuple[Array, ...], model: Layer) -> Callable[..., Array] | None:
        """The recording for a signature, made now if it has been seen often enough; None: run the work as it is."""
        if signature in self._made:
            return self._made[signature]
        seen = self._seen[signature] = self._seen.get(signature, 0) + 1
        if seen <= WARM_UP:
            return None
        self._made[signature] = self._new(inputs, model)
        return self._made[signature]

    def forget(self) -> None:
        """Drop all recordings: what they read and wrote is elsewhere now."""
        self._seen.clear()
        self._made.clear()

    def _new(self, inputs: tuple[Array, ...], model: Layer) -> Callable[..., Array] | None:
        if sum(made is not None for made in self._made.values()) >= MOST:
            self._tell(f"inputs of more than {MOST} shapes or types came. Pad the batches, or drop the last one.")
            return None
        if unfit := next((layer for layer in everything(model) if not layer.capturable), None):
            self._tell(f"{unfit.title} says that it cannot be captured.")
            return None
        try:
            return self.recorder.record(self.work, inputs)
        except Exception as error:  # whatever a layer raises when the device refuses to wait for it
            self._tell(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}")
            return None

    def _tell(self, reason: str) -> None:
        """Say why steps run kernel by kernel, once for each reason."""
        if reason not in self._told:
            self._told.add(reason)
            warnings.warn(
                f"training steps are not captured as one graph, which costs time but changes nothing: {reason} "
                "TrainStep(capture=False) turns this off.",
                stacklevel=6,  # the caller of the step
            )


def everything(layer: Layer) -> list[Layer]:
    """A layer and all layers inside."""
    return [layer, *(inner for part in layer.sublayers() for inner in everything(part))]
