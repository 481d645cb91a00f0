"""Error budgets: what is allowed, and how it is measured."""

import numpy as np
import pytest

from gpunet.parity.budgets import EPS, MAP, SUM, allowed, distance, largest, roundings, terms


def test_the_table():
    assert [EPS["float32"], EPS["float64"]] == [np.finfo(np.float32).eps, np.finfo(np.float64).eps]
    assert EPS["float16"] == EPS["tf32"] == np.finfo(np.float16).eps
    assert EPS["bfloat16"] == 2**-7
    assert roundings(0) == MAP
    assert roundings(400) == MAP + 20 * SUM


@pytest.mark.parametrize(
    ("x", "y", "longest"),
    [((32, 784), (32, 10), 784), ((500, 4), (500, 2), 500), ((2, 3, 5), (2, 3, 7), 21), ((4,), (4,), 4)],
)
def test_the_longest_sum(x, y, longest):
    assert terms(x, y) == longest


def test_at_least_some_ulps_of_the_largest_magnitude_are_allowed():
    results, limits = allowed(lambda given: {"y": np.zeros(3) + given["n"]}, {"n": np.array(7)}, 0.25)
    assert np.array_equal(results["y"], [7, 7, 7])
    assert limits == {"y": 1.75}  # integers are not changed


def test_what_a_change_of_the_inputs_does_is_allowed():
    """A difference of large numbers may be as far off as these."""

    def compute(given):
        return {"difference": given["a"] - given["b"], "sum": given["a"] + given["b"]}

    inputs = {"a": np.full(50, 1000.0), "b": np.full(50, 999.0)}
    results, limits = allowed(compute, inputs, 1e-3)
    assert largest(results["difference"]) == 1
    assert 1.2 < limits["difference"] <= 2.0
    assert limits["sum"] == pytest.approx(2.0, rel=0.1)
    assert allowed(compute, inputs, 1e-3)[1] == limits  # the same draws each time
    assert allowed(compute, inputs, 1e-3, seed=1)[1] != limits


def test_a_size_for_each_name():
    sizes = {"a": 0.0, "b": 0.1, "y": 0.5}
    limits = allowed(lambda given: {"y": given["a"] + given["b"]}, {"a": np.ones(5), "b": np.ones(5)}, sizes.get)[1]
    assert limits == {"y": 1.0}


def test_distances():
    assert distance([1.0, 2.0], [1.0, 2.5]) == 0.5
    assert distance([np.nan, np.inf, 1], [np.nan, np.inf, 1]) == 0
    assert distance([np.nan], [1.0]) == np.inf
    assert distance([np.inf], [-np.inf]) == np.inf
    assert distance([np.inf], [1e300]) == np.inf
    assert distance(np.zeros(3), np.zeros(2)) == np.inf
    assert distance(np.zeros(0), np.zeros(0)) == 0


def test_the_largest_magnitude_is_that_of_finite_numbers():
    assert largest([1.0, -3.0, np.nan, np.inf]) == 3
    assert largest([]) == largest([np.nan]) == 0
