"""Products on a cuBLASLt that works on host memory: shapes, layouts of arrays, what a result has to be."""

import numpy as np
import pytest
from fake_cublas_lt import FakeCublasLt
from fakegpu import FakeCupy

from gpunet_backends.cublas_lt import LtMatmul

ROUNDING = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}


def dtype_named(name):
    """bfloat16 is ml_dtypes'."""
    if name == "bfloat16":
        return np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
    return np.dtype(name)


def opened(**options) -> LtMatmul:
    cupy = FakeCupy()
    return LtMatmul(cupy, FakeCublasLt(cupy.submit, lambda: cupy.recorded is not None), **options)


# How an array may lie. What is between its elements is NaN: a product that reads it shows it.


def padded(cupy, x, *, before=(0, 0), after=(0, 0), by=(1, 1), transposed=False):
    """A view of a larger array of NaN: elements before and after it, and between, along the last two axes."""
    x = x.swapaxes(-1, -2) if transposed else x
    sizes = [b + n * d + a for n, b, a, d in zip(x.shape[-2:], before, after, by, strict=True)]
    host = np.full((*x.shape[:-2], *sizes), np.nan, x.dtype)
    cut = (..., *(slice(b, b + n * d, d) for n, b, d in zip(x.shape[-2:], before, by, strict=True)))
    host[cut] = x
    view = cupy.asarray(host)[cut]
    return view.swapaxes(-1, -2) if transposed else view


LAYOUTS = {
    "contiguous": padded,
    "transposed": lambda cupy, x: padded(cupy, x, transposed=True),
    "part of rows": lambda cupy, x: padded(cupy, x, before=(0, 1), after=(0, 2)),
    "part of columns": lambda cupy, x: padded(cupy, x, before=(2, 1), after=(1, 3), transposed=True),
    "every second row": lambda cupy, x: padded(cupy, x, by=(2, 1)),
    "every second number": lambda cupy, x: padded(cupy, x, by=(1, 2)),
    "backwards": lambda cupy, x: cupy.asarray(x[..., ::-1, :].copy())[..., ::-1, :],
    "columns backwards": lambda cupy, x: cupy.asarray(x[..., ::-1].copy())[..., ::-1],
    "one row for all": lambda cupy, x: cupy.broadcast_to(cupy.asarray(x[..., :1, :]), x.shape),
    "one column for all": lambda cupy, x: cupy.broadcast_to(cupy.asarray(x[..., :1]), x.shape),
}
"""They hold x, but for the last two, which repeat its first row or column."""

SHAPES = {
    "plain": ((4, 3), (3, 5)),
    "vectors": ((1, 3), (3, 1)),
    "row": ((1, 3), (3, 5)),
    "column": ((4, 3), (3, 1)),
    "outer": ((4, 1), (1, 5)),
    "one number": ((1, 1), (1, 1)),
    "batched": ((2, 4, 3), (2, 3, 5)),
    "one b": ((2, 4, 3), (3, 5)),
    "one b, rows": ((6, 1, 3), (3, 5)),
    "one a": ((4, 3), (2, 3, 5)),
    "length 1": ((1, 4, 3), (2, 3, 5)),
    "deep": ((2, 3, 4, 3), (2, 3, 3, 5)),
    "deep, one b": ((2, 3, 4, 3), (1, 1, 3, 5)),
    "deep, crossed": ((2, 1, 4, 3), (3, 3, 5)),
    "no rows": ((0, 3), (3, 5)),
    "no columns": ((4, 3), (3, 0)),
    "no terms": ((4, 0), (0, 5)),
    "no matrices": ((0, 4, 3), (3, 5)),
    "no terms, batched": ((2, 4, 0), (0, 5)),
}


def operands(shapes, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def expected(a, b, start=None):
    """The product in float64 and how far off a result may be, from the rounding of sums and of the result."""
    wide = [np.asarray(x, np.float64) for x in (a, b)]
    name = a.dtype.name
    sums = ROUNDING["float64" if name == "float64" else "float32"]
    with np.errstate(all="ignore"):
        result, magnitude = wide[0] @ wide[1], abs(wide[0]) @ abs(wide[1])
    if start is not None:
        start = np.asarray(start, np.float64)
        result, magnitude = result + start, magnitude + abs(start)
    return result, (a.shape[-1] + 2) * sums * magnitude + ROUNDING[name] * abs(result) + 2.0**-25 * (name == "float16")


def agree(y, a, b, start=None):
    result, tolerance = expected(a, b, start)
    assert y.shape == result.shape
    assert y.dtype == a.dtype
    np.testing.assert_array_less(abs(np.asarray(y.get(), np.float64) - result), tolerance + 1e-300)
