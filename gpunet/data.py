"""Batches: from host arrays, in the same order on every device, or from anything that yields them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from gpunet.backend import host
from gpunet.errors import ArgumentError
from gpunet.io.files import checksum


def batches(
    x: Any, y: Any, batch_size: int, *, seed: int, epoch: int, sample_weight: Any = None
) -> Iterator[tuple[Any, ...]]:
    """Shuffled batches (x, y), or (x, y, sample_weight), each sample once; the last one may be smaller.

    The order is keyed by (seed, epoch).
    """
    arrays = (x, y) if sample_weight is None else (x, y, sample_weight)
    return Arrays(*arrays).shuffled(batch_size, seed, epoch)


def split(*arrays: Any, fraction: float, seed: int) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """(training part, validation part) of arrays of one length, shuffled alike.

    The second part has ``fraction`` of the samples, at least one of them.

    Raises
        ArgumentError: fraction outside (0, 1), or too few samples to give each part one.
    """
    train, held_out = Arrays(*arrays).split(fraction, seed)
    return tuple(a[train.rows] for a in arrays), tuple(a[held_out.rows] for a in arrays)


class Arrays:
    """Host arrays (x, y) or (x, y, sample_weight) of one length, or some rows of them. Only batches are copied.

    samples   how many rows
    """

    def __init__(self, *arrays: Any, rows: Any = None):
        self.arrays, self.rows = arrays, rows
        self.samples = len(arrays[0]) if rows is None else len(rows)

    def described(self) -> dict[str, Any]:
        """What tells these data from others: shapes, and a checksum of a hundred samples."""
        step = max(1, self.samples // 100)
        rows = slice(None, None, step) if self.rows is None else self.rows[::step]
        return {"samples": self.samples, "checksum": checksum("", {str(n): a[rows] for n, a in enumerate(self.arrays)})}

    def split(self, fraction: float, seed: int) -> tuple[Arrays, Arrays]:
        """(training part, validation part), as the function ``split``."""
        if not 0 < fraction < 1:
            raise ArgumentError(f"the fraction to hold out (validation_split) must be in (0, 1), but got {fraction!r}.")
        n = max(1, round(self.samples * fraction))
        if n >= self.samples:
            raise ArgumentError(
                f"{self.samples} samples cannot be split so that a fraction {fraction} is held out. Use more samples."
            )
        order = host().permutation(seed, "validation split", self.samples)
        return Arrays(*self.arrays, rows=order[n:]), Arrays(*self.arrays, rows=order[:n])

    def shuffled(self, batch_size: int, seed: int, epoch: int, skip: int = 0) -> Iterator[tuple[Any, ...]]:
        """Batches in the order of an epoch, without the first ones."""
        order = host().permutation(seed, f"epoch {epoch}", self.samples)
        order = order if self.rows is None else self.rows[order]
        for start in range(skip * batch_size, self.samples, batch_size):
            rows = order[start : start + batch_size]
            yield tuple(array[rows] for array in self.arrays)

    def in_order(self, batch_size: int) -> Iterator[tuple[Any, ...]]:
        """Batches as they lie."""
        for start in range(0, self.samples, batch_size):
            rows = slice(start, start + batch_size) if self.rows is None else self.rows[start : start + batch_size]
            yield tuple(array[rows] for array in self.arrays)


class Batches:
    """Anything that yields batches (x, y) or (x, y, sample_weight): a list, a DataLoader, a function of no arguments.

    It is gone through once an epoch: a generator can be so only once, the function that makes it any number of times.
    """

    samples = None

    def __init__(self, source: Any):
        self.source = source
        self._begun: Iterator[tuple[Any, ...]] | None = None
        if not callable(source) and not hasattr(source, "__iter__"):
            raise ArgumentError(
                f"fit takes arrays x and y, or something that yields batches (x, y), but got a {type(source).__name__}."
            )

    def first(self) -> tuple[Any, ...]:
        """The first batch, which comes again in the first epoch."""
        begun = self.in_order(1)
        batch = next(begun)
        self._begun = chain([batch], begun)
        return batch

    def described(self) -> dict[str, Any]:
        """Nothing: looking at them might use them up."""
        return {}

    def shuffled(self, batch_size: int, seed: int, epoch: int, skip: int = 0) -> Iterator[tuple[Any, ...]]:
        """The batches in the source's own order, without the first ones."""
        begun, self._begun = self._begun, None
        return islice(begun or self.in_order(batch_size), skip, None)

    def in_order(self, batch_size: int) -> Iterator[tuple[Any, ...]]:
        """The batches in the source's own order and size.

        Raises
            ArgumentError: there are none, or something else comes.
        """
        empty = True
        for batch in self.source() if callable(self.source) else self.source:
            if not isinstance(batch, list | tuple) or len(batch) not in (2, 3):
                what = f"{len(batch)} parts" if isinstance(batch, list | tuple) else f"a {type(batch).__name__}"
                raise ArgumentError(f"a batch is (x, y) or (x, y, sample_weight), but got {what}.")
            empty = False
            yield tuple(batch)
        if empty:
            raise ArgumentError(
                "there are no batches, or no more: a generator ends after one epoch. Give fit the function that makes "
                "the generator, or a list."
            )
