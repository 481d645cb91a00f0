"""What formulas may use besides the array-API standard's own functions."""

from __future__ import annotations

from typing import Any

from gpunet.formula import evaluate
from gpunet.formula.erf import erf as erf_of
from gpunet.formula.trace import Symbol


def index(x: Any) -> Any:
    """Position along the last axis of x, (k,) int32."""
    return x.tracer.index(x) if isinstance(x, Symbol) else evaluate.index_of(_namespace(x), x)


def random_bits(x: Any, seed: Any, draw: Any, step: Any) -> Any:
    """32 random bits for each element of x; they are only compared with an integer constant.

    Threefry-2x32-20 with key (seed, draw) and counter (element index in C order, step), first word. x varies over rows
    and the last axis and has at most 2**32 elements; seed, draw and step are 0-d integers in [0, 2**32).
    """
    if isinstance(x, Symbol):
        return x.tracer.random_bits(x, seed, draw, step)
    return evaluate.random_bits_of(_namespace(x), x, seed, draw, step)


def erf(x: Any) -> Any:
    """The error function, 2/√π ∫₀ˣ exp(-t²) dt."""
    if isinstance(x, Symbol):
        return x.tracer.elementwise("erf", x)
    return erf_of(_namespace(x), x)


def sigmoid(x: Any) -> Any:
    """The logistic function, 1 / (1 + exp(-x))."""
    if isinstance(x, Symbol):
        return x.tracer.elementwise("sigmoid", x)
    return evaluate.sigmoid_of(_namespace(x), x)


def column_sum(y: Any) -> Any:
    """Output only: sum over all rows of a value that varies over rows and the last axis, (k,)."""
    return y.tracer.column_sum(y) if isinstance(y, Symbol) else evaluate.column_sum_of(_namespace(y), y)


def total(y: Any) -> Any:
    """Output only: sum of a value that varies over rows over its own elements, ()."""
    return y.tracer.total(y) if isinstance(y, Symbol) else _namespace(y).sum(y)


def _namespace(x: Any) -> Any:
    from array_api_compat import array_namespace  # imported late: `import gpunet` stays light

    return array_namespace(x)
