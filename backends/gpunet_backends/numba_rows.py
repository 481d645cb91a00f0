"""Rows added to a table by index: a compiled loop."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from gpunet_backends.numba_build import compiled

SOURCE = '''"""out[i] += row, for each index i and its row, in order."""


def kernel(out, index, rows):
    for n in range(index.shape[0]):
        i = index[n]
        if 0 <= i < out.shape[0]:
            for c in range(rows.shape[1]):
                out[i, c] += rows[n, c]
'''


@cache
def scatter_add(dtype: str) -> Callable[..., None]:
    """(out, index, rows), contiguous, for tables of this type."""
    from numba import types

    number = getattr(types, dtype)
    table = types.Array(number, 2, "C")
    index, rows = types.Array(types.int32, 1, "C", readonly=True), types.Array(number, 2, "C", readonly=True)
    return compiled(SOURCE, f"gpunet_scatter_add_{dtype}", types.void(table, index, rows))
