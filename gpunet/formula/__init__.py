"""Formulas: written once with the array-API standard's names, traced to a graph, run or compiled by every backend."""

from gpunet.formula.graph import Graph, Node
from gpunet.formula.primitives import column_sum, erf, index, random_bits, sigmoid, total
from gpunet.formula.shapes import Operand, classify, dtype_kind, dtype_name, int32
from gpunet.formula.trace import Formula, name_of, trace

__all__ = [
    "Formula",
    "Graph",
    "Node",
    "Operand",
    "classify",
    "column_sum",
    "dtype_kind",
    "dtype_name",
    "erf",
    "index",
    "int32",
    "name_of",
    "random_bits",
    "sigmoid",
    "total",
    "trace",
]
