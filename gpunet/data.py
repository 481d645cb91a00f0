"""Batches from host arrays: the same order on every device."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gpunet.backend import host
from gpunet.errors import ArgumentError


def batches(
    x: Any, y: Any, batch_size: int, *, seed: int, epoch: int, sample_weight: Any = None
) -> Iterator[tuple[Any, ...]]:
    """Shuffled batches (x, y), or (x, y, sample_weight), each sample once; the last one may be smaller.

    The order is keyed by (seed, epoch).
    """
    arrays = (x, y) if sample_weight is None else (x, y, sample_weight)
    order = host().permutation(seed, f"epoch {epoch}", len(x))
    for start in range(0, len(x), batch_size):
        rows = order[start : start + batch_size]
        yield tuple(array[rows] for array in arrays)


def split(*arrays: Any, fraction: float, seed: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(training part, validation part) of arrays of one length, shuffled alike.

    The second part has ``fraction`` of the samples, at least one of them.

    Raises
        ArgumentError: fraction outside (0, 1), or too few samples to give each part one.
    """
    if not 0 < fraction < 1:
        raise ArgumentError(f"validation_split must be in (0, 1), but got {fraction!r}.")
    samples = len(arrays[0])
    n = max(1, round(samples * fraction))
    if n >= samples:
        raise ArgumentError(f"{samples} samples cannot be split with validation_split={fraction}. Use more samples.")
    order = host().permutation(seed, "validation split", samples)
    return tuple(a[order[n:]] for a in arrays), tuple(a[order[:n]] for a in arrays)
