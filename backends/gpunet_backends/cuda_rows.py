"""Rows of a table by index on a GPU: ``cuda_rows.cuh`` for each pair of data types."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from gpunet.backend import Array
from gpunet_backends.cuda_emit import CudaSource, prelude
from gpunet_backends.cuda_kernels import Kernels
from gpunet_backends.cuda_variant import TYPES

BLOCK, MOST_BLOCKS = 256, 1 << 16
WARP = 32


@cache
def rows_source(table: str, rows: str) -> CudaSource:
    """Both kernels, for a table and rows of these data types."""
    real = "double" if "float64" in (table, rows) else "float"
    types = f"#define TABLE {TYPES[table]}\n#define ROWS {TYPES[rows]}\n#define X {real}\n"
    text = prelude() + types + Path(__file__).with_name("cuda_rows.cuh").read_text()
    return CudaSource(text, f"rows_{table}_{rows}", (), (), ())


def gather(kernels: Kernels, out: Array, table: Array, index: Array) -> None:
    """out[n] = table[index[n]]; contiguous arrays, one index for each row of out."""
    if out.size:
        function = kernels.functions(rows_source(table.dtype.name, out.dtype.name))("gather_rows")
        blocks = min(-(-out.size // BLOCK), MOST_BLOCKS)
        numbers = np.int64(out.size), np.int32(table.shape[1]), np.int32(table.shape[0])
        function((blocks,), (BLOCK,), (out, table, index, *numbers))


def scatter_add(kernels: Kernels, out: Array, index: Array, rows: Array) -> None:
    """out[index[n]] += rows[n], in the order of n; contiguous arrays."""
    if rows.size:
        function = kernels.functions(rows_source(out.dtype.name, rows.dtype.name))("scatter_add_rows")
        numbers = np.int32(index.size), np.int32(out.shape[1]), np.int32(out.shape[0])
        function((index.size,), (WARP,), (out, index, rows, *numbers))
