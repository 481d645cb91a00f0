"""The language: what it refuses, and what a graph knows."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpunet.errors import FormulaError
from gpunet.formula import Operand, classify, column_sum, erf, index, random_bits, total, trace

LAST = {"axis": -1, "keepdims": True}


def refuse_if(xp, x):
    return x if x > 0 else -x


REFUSED = {
    "slicing": lambda xp, x: x[0],
    "Python's if, and, or, not, min, max": refuse_if,
    "chained comparison": lambda xp, x: xp.where(0 < x < 1, x, 0.0),
    r"float\(\) or math": lambda xp, x: math.exp(x),
    "numpy.exp": lambda xp, x: np.exp(x),
    "numpy.multiply": lambda xp, x: np.ones(3) * x,
    "xp.cumsum": lambda xp, x: xp.cumsum(x),
    "xp.matmul": lambda xp, x: xp.matmul(x, x),
    "the matrix product": lambda xp, x: x @ x,
    "the attribute .sum": lambda xp, x: x.sum(),
    r"sum\(axis=None, keepdims=False\) .* Write axis=-1, keepdims=True": lambda xp, x: xp.sum(x),
    "max of a value that does not vary along the last axis": lambda xp, x: xp.max(xp.max(x, **LAST), **LAST),
    "sum of bool": lambda xp, x: xp.sum(x > 0, **LAST),
    "a constant of type float32": lambda xp, x: x + np.float32(1),
    "using the result of total": lambda xp, x: x * total(x),
    "using the result of column_sum": lambda xp, x: x + column_sum(x),
    "add of bool and float": lambda xp, x: x + (x > 0),
    "add of float and int": lambda xp, x: x + index(x),
    "add of int": lambda xp, x: x * (index(x) + 1 > 0),
    "logical_and of bool and float": lambda xp, x: (x > 0) & x,
    "where on a condition": lambda xp, x: xp.where(x, 1.0, 0.0),
    "an output that does not vary over rows": lambda xp, x: 1.0,
    "an integer output": lambda xp, x: index(x),
    "column_sum of a value that does not vary": lambda xp, x: column_sum(xp.sum(x, **LAST)),
    "random_bits with a key that is not": lambda xp, x: xp.where(random_bits(x, x, 0, 0) > 1, x, 0.0),
    "iteration": lambda xp, x: sum(x),
    r"len\(\)": lambda xp, x: x * len(x),
    "use as an index": lambda xp, x: x * [1, 2][x],
    "assignment": lambda xp, x: x.__setitem__(0, 1),
    "conversion to NumPy": lambda xp, x: x * np.asarray(x),
    "//": lambda xp, x: x // 2,
    "%": lambda xp, x: x % 2,
    "exp of 2 arguments": lambda xp, x: xp.exp(x, x),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_outside_the_language_is_refused(message):
    formula = REFUSED[message]
    with pytest.raises(FormulaError, match=rf"formula 'mine': .*{message}"):
        trace(formula, [Operand("full")], "mine")


def test_a_value_of_another_formula_is_refused():
    leaked = []
    trace(lambda xp, x: leaked.append(x) or x, [Operand("full")])
    with pytest.raises(FormulaError, match="a value of another formula"):
        trace(lambda xp, x: x + leaked[0], [Operand("full")])


def test_the_error_names_the_formula_itself():
    with pytest.raises(FormulaError, match="formula 'refuse_if': "):
        trace(refuse_if, [Operand("full")])


def test_equal_operations_are_kept_once_and_unused_ones_dropped():
    def formula(xp, x, y):
        xp.exp(y)
        return xp.exp(x) * xp.exp(x)

    graph = trace(formula, [Operand("full"), Operand("full")])
    assert [n.op for n in graph.nodes] == ["operand", "exp", "multiply"]
    assert graph.used == {0}


def test_the_key_depends_on_structure_constants_and_kinds_alone():
    def key(formula, kind="full"):
        return trace(formula, [Operand(kind)]).key

    assert key(lambda xp, x: x * 2.0) == key(lambda xp, y: y * 2)
    assert key(lambda xp, x: x * 0.0) != key(lambda xp, x: x * -0.0)
    assert key(lambda xp, x: x * 2.0) != key(lambda xp, x: x * 2.0, "row")
    assert hash(key(lambda xp, x: x)) == hash(key(lambda xp, x: x))


def test_graphs_compose_by_calling():
    inner = trace(lambda xp, x: (xp.exp(x), total(x)), [Operand("full")])
    outer = trace(lambda xp, x: inner(xp, x)[0] + 1, [Operand("full")])
    assert [n.op for n in outer.nodes] == ["operand", "exp", "const", "add"]
    x = np.arange(6.0).reshape(2, 3)
    assert np.array_equal(outer(np, x), np.exp(x) + 1)


def test_an_operand_that_must_not_be_touched():
    assert trace(lambda xp, x, y: x + 1, [Operand("full"), None]).used == {0}
    with pytest.raises(TypeError):
        trace(lambda xp, x, y: x + y * 2, [Operand("full"), None])


@pytest.mark.parametrize(
    ("shapes", "kinds"),
    [
        ([(4, 3), (3,), (4, 1), ()], ["full", "col", "row", "scalar"]),
        ([(4, 3), (1, 3), (1, 1)], ["full", "col", "scalar"]),
        ([(1, 3), (1, 3), (1, 1)], ["full", "full", "row"]),  # batch size 1 is the same kernel
        ([(4, 1), (4, 1), (1,)], ["full", "full", "col"]),
        ([(2, 3, 4, 5), (2, 1, 1, 5), (4, 1), (5,)], ["full", "full", "row", "col"]),
        ([(0, 3), (1, 3)], ["full", "col"]),
        ([(7,), (7,), (), (1,)], ["full", "full", "scalar", "scalar"]),
        ([(), ()], ["scalar", "scalar"]),
    ],
)
def test_kinds_follow_from_shapes(shapes, kinds):
    assert [o.kind for o in classify(shapes, ["float32"] * len(shapes))] == kinds


def test_types_follow_from_names():
    assert [o.dtype for o in classify([(2,)] * 4, ["bfloat16", "int64", "bool", "uint8"])] == [
        "float",
        "int",
        "bool",
        "int",
    ]


def test_primitives_work_on_arrays_too():
    x = np.array([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    assert index(x).tolist() == [0, 1, 2]
    assert column_sum(x).tolist() == [3, 5, 7]
    assert total(x) == 15
    assert erf(x)[0].tolist() == pytest.approx([math.erf(v) for v in x[0]], rel=1e-15)
    assert random_bits(x, 0, 0, 0)[0, 0] == 0x6B200159
