"""Rows of a table by index: gathered, and added in the order of the places."""

from __future__ import annotations

import numpy as np
import pytest
from kit import error

FLOATS = [("float32", "float32"), ("float64", "float64"), ("float32", "float16")]
CASES = {
    "few": (5, 3, (7,)),
    "many equal": (3, 33, (4, 50)),
    "one column": (40, 1, (100,)),
    "one entry": (1, 8, (65,)),
    "none": (5, 3, (0,)),
    "wide": (6, 70, (2, 3, 11)),
}
cases = pytest.mark.parametrize("case", CASES)
types = pytest.mark.parametrize(("table_type", "rows_type"), FLOATS)


def given(case: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A table, indices of which some are out of range, and a row for each."""
    entries, units, shape = CASES[case]
    rng = np.random.default_rng(1)
    index = rng.integers(-1, entries + 1, shape).astype(np.int32)
    return rng.standard_normal((entries, units)), index, rng.standard_normal((*shape, units))


def needs(dtype: str, backend) -> None:
    """Skip what the array library has no type for."""
    if dtype == "float16" and backend.name == "array_api_strict":
        pytest.skip("array_api_strict has no float16")


def added(table: np.ndarray, index: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """One row after another."""
    table = table.copy()
    for i, row in zip(index.ravel(), rows.reshape(-1, table.shape[1]), strict=True):
        if 0 <= i < len(table):
            table[i] += row
    return table


@cases
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_gathered_rows_are_those_of_the_table(case, dtype, backend):
    needs(dtype, backend)
    table, index, _ = given(case)
    table = table.astype(dtype)
    rows = backend.gather_rows(backend.asarray(table), backend.asarray(index))
    known = (index >= 0) & (index < len(table))
    expected = np.where(known[..., None], table[np.clip(index, 0, len(table) - 1)], np.nan)
    assert backend.to_numpy(rows).dtype == dtype
    np.testing.assert_array_equal(backend.to_numpy(rows), expected)


@cases
@types
def test_rows_are_added_to_those_of_their_index(case, table_type, rows_type, backend):
    needs(rows_type, backend)
    table, index, rows = given(case)
    table, rows = table.astype(table_type), rows.astype(rows_type)
    out = backend.zeros(table.shape, table_type)
    out[...] = backend.asarray(table)
    given_rows = backend.asarray(rows)
    backend.scatter_add_rows(out, backend.asarray(index), given_rows)
    expected = added(table.astype(np.float64), index, rows.astype(np.float64))
    assert error(backend.to_numpy(out), expected) <= (1e-5 if table_type == "float32" else 1e-13)
    np.testing.assert_array_equal(backend.to_numpy(given_rows), rows)


@pytest.mark.parametrize("rows_type", ["float32", "float16"])
def test_the_order_of_addition_is_that_of_the_places(rows_type, backend):
    """Largest first, which rounds otherwise than smallest first."""
    needs(rows_type, backend)
    rows = np.array([[2.0**12], [2.0**-12], [2.0**-12], [-(2.0**12)]] * 9, np.float32).astype(rows_type)
    index = np.zeros(len(rows), np.int32)
    out = backend.zeros((1, 1), "float32")
    backend.scatter_add_rows(out, backend.asarray(index), backend.asarray(rows))
    assert backend.to_numpy(out).tolist() == added(np.zeros((1, 1), np.float32), index, rows.astype("f4")).tolist()


def test_rows_that_are_not_finite_stay_where_they_are(backend):
    out = backend.zeros((3, 2), "float32")
    rows = np.array([[np.nan, 1.0], [np.inf, 1.0], [1.0, 1.0]], np.float32)
    backend.scatter_add_rows(out, backend.asarray(np.array([0, 2, 2], np.int32)), backend.asarray(rows))
    np.testing.assert_array_equal(backend.to_numpy(out), [[np.nan, 1], [0, 0], [np.inf, 2]])


def test_strided_arrays(backend):
    table, index, rows = given("wide")
    wide = backend.asarray(np.repeat(rows, 2, axis=-1))
    out, plain = (backend.zeros(table.shape, "float64") for _ in range(2))
    indices = backend.asarray(np.repeat(index, 2, axis=-1))[..., ::2]
    backend.scatter_add_rows(out, indices, wide[..., ::2])
    backend.scatter_add_rows(plain, backend.asarray(index), backend.asarray(rows))
    np.testing.assert_array_equal(backend.to_numpy(out), backend.to_numpy(plain))
    wide_out = backend.zeros((table.shape[0], 2 * table.shape[1]), "float64")
    backend.scatter_add_rows(wide_out[..., ::2], indices, wide[..., ::2])
    np.testing.assert_array_equal(backend.to_numpy(wide_out)[..., ::2], backend.to_numpy(plain))
    assert not backend.to_numpy(wide_out)[..., 1::2].any()
    tables = backend.asarray(np.repeat(table, 2, axis=-1))[..., ::2]
    np.testing.assert_array_equal(
        backend.to_numpy(backend.gather_rows(tables, indices)),
        backend.to_numpy(backend.gather_rows(backend.asarray(table), backend.asarray(index))),
    )
