"""Ctrl-C between steps: a step that has begun is finished, so that weights and counters belong together."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class Stopped(KeyboardInterrupt):
    """Ctrl-C that waited for the end of a step."""


class Interrupts:
    """Context manager in which Ctrl-C waits for ``check``; a second one does not wait.

    Only in the main thread, and only where Ctrl-C does what Python has it do.
    """

    def __init__(self) -> None:
        self.asked = self._active = False

    def __enter__(self) -> Interrupts:
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._handle)
            self._active = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def check(self) -> None:
        """Raises Stopped if it was asked for."""
        if self.asked:
            raise Stopped
