"""A few threads that run parts of one kernel; for kernels that release the interpreter's lock."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that limit the number of threads; the first that is set counts."""


def thread_count() -> int:
    """What the environment asks for, at most the cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name in LIMITS:
        value = os.environ.get(name, "").split(",")[0]
        if value.isascii() and value.isdigit() and int(value) > 0:
            return min(int(value), cores)
    return cores


class _Worker:
    """A thread that waits for one call at a time. Handing over by locks costs about 10 µs; an executor takes 30."""

    def __init__(self) -> None:
        self._go, self._done = threading.Lock(), threading.Lock()
        self._go.acquire()
        self._done.acquire()
        self._call: tuple[Callable[..., Any], tuple[Any, ...]] = (len, ((),))
        self._error: BaseException | None = None
        threading.Thread(target=self._loop, daemon=True, name="gpunet kernel").start()

    def _loop(self) -> None:
        while True:
            self._go.acquire()
            function, arguments = self._call
            try:
                function(*arguments)
            except BaseException as error:  # handed to the caller
                self._error = error
            self._call, function, arguments = (len, ((),)), len, ()  # keeps no arrays alive
            self._done.release()

    def start(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self._call = function, arguments
        self._go.release()

    def wait(self) -> BaseException | None:
        """The call's error; Ctrl-C meanwhile counts as one, once the call is done."""
        interrupt: BaseException | None = None
        while True:
            try:
                self._done.acquire()
                break
            except KeyboardInterrupt as again:
                interrupt = again
        error, self._error = self._error, None
        return interrupt or error


_workers: list[_Worker] = []
_busy = threading.Lock()


def run_parts(function: Callable[..., Any], arguments: tuple[Any, ...], cuts: Sequence[tuple[int, int]]) -> None:
    """function(*arguments, first, last) for each cut, at the same time; one after another while the pool is in use."""
    if not _busy.acquire(blocking=False):
        for cut in cuts:
            function(*arguments, *cut)
        return
    try:
        while len(_workers) < len(cuts) - 1:
            _workers.append(_Worker())
        started = []
        for worker, cut in zip(_workers, cuts[1:], strict=False):
            worker.start(function, (*arguments, *cut))
            started.append(worker)
        errors: list[BaseException | None] = []
        try:
            function(*arguments, *cuts[0])
        finally:
            errors = [worker.wait() for worker in started]
        for error in errors:
            if error is not None:
                raise error
    finally:
        _busy.release()


def _forget() -> None:
    """In a forked process the workers' threads do not exist."""
    global _busy
    _workers.clear()
    _busy = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
