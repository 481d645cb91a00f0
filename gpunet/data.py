"""Batches from host arrays: the same order on every device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpunet.backend import host
from gpunet.errors import ArgumentError


def batches(x: Any, y: Any, batch_size: int, *, seed: int, epoch: int) -> Iterator[tuple[Any, Any]]:
    """Shuffled batches of (x, y), each sample once; the last one may be smaller. Keyed by (seed, epoch)."""
    order = host().permutation(seed, f"epoch {epoch}", len(x))
    for start in range(0, len(x), batch_size):
        rows = order[start : start + batch_size]
        yield x[rows], y[rows]


def split(x: Any, y: Any, fraction: float, *, seed: int) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """(training part, validation part), shuffled; the second has ``fraction`` of the samples, at least one of them.

    Raises
        ArgumentError: fraction outside (0, 1), or too few samples to give each part one.
    """
    if not 0 < fraction < 1:
        raise ArgumentError(f"validation_split must be in (0, 1), but got {fraction!r}.")
    n = max(1, round(len(x) * fraction))
    if n >= len(x):
        raise ArgumentError(f"{len(x)} samples cannot be split with validation_split={fraction}. Use more samples.")
    order = host().permutation(seed, "validation split", len(x))
    return (x[order[n:]], y[order[n:]]), (x[order[:n]], y[order[:n]])
