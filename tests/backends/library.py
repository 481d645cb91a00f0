"""Every formula of the library with operands for it: shapes, memory layouts, types, special values."""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from kit import beside

from gpunet import layers, losses, optim
from gpunet.fold import _Composition
from gpunet.formula import Graph, classify, trace
from gpunet.initializers import Zeros
from gpunet.layers.dense import Bias
from gpunet.losses.loss import inverse, product
from gpunet.optim.average import _average
from gpunet.optim.clip import _clamp, _norm, _scale, _square_sum
from gpunet.parameter import Parameter

formulas = beside(__file__, "../formula/formulas.py")


class Case(NamedTuple):
    """A formula, the names of its operands, and which of them its outputs replace in the library."""

    formula: Callable[..., Any]
    operands: str
    replaced: tuple[int, ...] = (0,)


OPERANDS = {  # kind, values
    **dict.fromkeys(["x", "dy", "y", "p", "g", "m", "z", "i", "f", "o", "c"], ("full", "normal")),
    **dict.fromkeys(["v", "u"], ("full", "positive")),
    "square": ("full", "above four"),
    "probability": ("full", "uniform"),
    "mask": ("full", "bool"),
    **dict.fromkeys(["label", "position"], ("row", "label")),
    **dict.fromkeys(["b", "mean", "scale", "shift", "mean_dy", "mean_dy_n"], ("col", "normal")),
    **dict.fromkeys(["variance", "r"], ("col", "positive")),
    **dict.fromkeys(["lr", "weight", "norm", "limit"], ("scalar", "positive")),
    "t": ("scalar", "count"),
    "below": ("scalar", "below one half"),
    "w": ("row", "positive"),
    **dict.fromkeys(["seed", "draw", "step"], ("scalar", "key")),
}
bias, relu, tanh, dropout = Bias(Parameter("b", (3,), Zeros())), layers.ReLU(), layers.Tanh(), layers.Dropout(0.3)
prelu, gelu = layers.PReLU(), layers.GELU(approximate=True)
LAYERS = {bias: "b", relu: "", tanh: "", dropout: "seed draw step", prelu: "r"}
LAYERS |= dict.fromkeys([layers.Sigmoid(), layers.Softsign(), layers.HardSigmoid(), layers.Identity()], "")
LAYERS |= dict.fromkeys([layers.ReLU6(), layers.LeakyReLU(), layers.ELU(), layers.SELU(), layers.CELU(0.7)], "")
LAYERS |= dict.fromkeys([layers.GELU(), layers.SiLU(), layers.Mish(), layers.Softplus(2.0), layers.HardSwish()], "")
LAYERS |= dict.fromkeys([layers.Softmax(), layers.LogSoftmax()], "")
LAYERS |= {layers.LayerNorm(): "scale shift", layers.RMSNorm(): "scale"}
LOSSES = {losses.CrossEntropy(): "label", losses.BinaryCrossEntropy(): "probability"}
LOSSES |= dict.fromkeys([losses.MeanSquaredError(), losses.MeanAbsoluteError()], "x")
LOSSES |= dict.fromkeys([losses.Huber(0.7), losses.SmoothL1(0.7), losses.CosineSimilarity()], "x")
LOSSES |= {losses.Hinge(): "x", losses.Poisson(): "v", losses.KLDivergence(): "probability"}
WEIGHTED, SMOOTHED = losses.BinaryCrossEntropy(3.0), losses.CrossEntropy(label_smoothing=0.1)
EVERYTHING = losses.CrossEntropy(label_smoothing=0.1, class_weights=[1.0], ignore_label=1)
OPTIMIZERS = {
    optim.SGD(0.1): "",
    optim.SGD(0.1, momentum=0.9): "m",
    optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.1): "m",
    optim.SGD(0.1, momentum=0.9, dampening=0.5): "m",
    optim.Adam(): "m v",
    optim.Adam(amsgrad=True, weight_decay=0.1): "m v u",
    optim.AdamW(): "m v",
    optim.RMSprop(): "v",
    optim.RMSprop(centered=True, momentum=0.9, weight_decay=0.1): "square probability x",  # v far above a²
    optim.Adagrad(lr_decay=0.1, weight_decay=0.1, initial_accumulator_value=0.1): "v",
    optim.Lion(weight_decay=0.1): "m",
    optim.Adadelta(weight_decay=0.1): "v u",
    optim.RAdam(weight_decay=0.1): "m v",
    optim.NAdam(weight_decay=0.1): "m v",
    optim.NAdam(weight_decay=0.1, decoupled_weight_decay=True): "m v",
}
"""Their slots, by names of OPERANDS."""
two = _Composition([bias, relu], [1, 0], [bias.bias], 3)
three = _Composition([bias, tanh, dropout], [1, 0, 3], [bias.bias, None, None, None], 3)


def optimizer_name(one: optim.Optimizer) -> str:
    """The class and the settings that are not its defaults, but for the learning rate."""
    changed = [f.name for f in fields(one) if f.init and f.default != getattr(one, f.name)]
    return " ".join([type(one).__name__, *(name for name in changed if name not in ("learning_rate", "groups"))])


def update(one: optim.Optimizer, slots: str) -> Case:
    """Its formula in place."""
    product = "below" if isinstance(one, optim.NAdam) else ""
    return Case(one.formula, f"p g {slots} lr t {product}", (0, *range(2, 2 + len(slots.split()))))


CASES = {
    **{type(one).__name__: Case(one.formula, f"x {rest}") for one, rest in LAYERS.items()},
    **{f"{type(one).__name__}'": Case(one.derivative, f"dy x y {rest}") for one, rest in LAYERS.items()},
    "GELU by tanh": Case(gelu.formula, "x"),
    "GELU by tanh'": Case(gelu.derivative, "dy x y"),
    "GLU": Case(layers.GLU().formula, "x z"),
    "GLU'": Case(layers.GLU().derivative, "dy x z"),
    "SwiGLU": Case(layers.SwiGLU().formula, "x z"),
    "SwiGLU'": Case(layers.SwiGLU().derivative, "dy x z"),
    "Bias+ReLU": Case(two.forward, "x b"),
    "Bias+ReLU'": Case(two.backward, "dy x y b"),
    "Bias+Tanh+Dropout": Case(three.forward, "x b seed draw step"),
    "Bias+Tanh+Dropout'": Case(lambda xp, dy, x, *o: three.backward(xp, dy, x, None, *o), "dy x b seed draw step"),
    **{type(one).__name__: Case(one.formula, f"z {target} weight", (None, 0)) for one, target in LOSSES.items()},
    "CrossEntropy, smoothed": Case(SMOOTHED.formula, "z label weight", (None, 0)),
    "CrossEntropy of probabilities": Case(losses.CrossEntropy().formula, "z probability weight", (None, 0)),
    "CrossEntropy of probabilities, smoothed": Case(SMOOTHED.formula, "z probability weight", (None, 0)),
    "CrossEntropy of weighted classes": Case(losses.CrossEntropy().formula, "z label weight r", (None, 0)),
    "CrossEntropy of weighted samples": Case(losses.CrossEntropy().formula, "z label w", (None, 0)),
    "CrossEntropy, everything": Case(EVERYTHING.formula, "z label w r", (None, 0)),
    "CrossEntropy: sum of weights": Case(EVERYTHING.sum_of_weights, "label r", (None,)),
    "MeanSquaredError of weighted samples": Case(losses.MeanSquaredError().formula, "z x w", (None, 0)),
    "loss: 1/n": Case(inverse, "norm"),
    "loss: weight": Case(product, "w weight"),
    "BinaryCrossEntropy, weighted": Case(WEIGHTED.formula, "z probability weight", (None, 0)),
    **{optimizer_name(one): update(one, slots) for one, slots in OPTIMIZERS.items()},
    "NAdam: product": Case(optim.NAdam().once, "t", ()),
    "average": Case(_average, "x p weight"),
    "clip: square sum": Case(_square_sum, "g", (None,)),
    "clip: norm": Case(_norm, "norm"),
    "clip: scale": Case(_scale, "g norm limit"),
    "clip: clamp": Case(_clamp, "g limit"),
    "batchnorm_mean": Case(formulas.batchnorm_mean, "x weight", (None,)),
    "batchnorm_variance": Case(formulas.batchnorm_variance, "x mean weight", (1,)),
    "batchnorm_forward": Case(formulas.batchnorm_forward, "x mean variance scale shift"),
    "batchnorm_backward": Case(formulas.batchnorm_backward, "dy x mean r scale mean_dy mean_dy_n", (1, 5, None)),
    "layernorm": Case(formulas.layernorm, "x scale shift"),
    "layernorm_backward": Case(formulas.layernorm_backward, "dy x scale", (0, None, 2)),
    "masked_softmax": Case(formulas.masked_softmax, "x mask"),
    "causal_softmax": Case(formulas.causal_softmax, "x position"),
    "lstm_gates": Case(formulas.lstm_gates, "i f g o c", (3, 4)),
    "adamw": Case(formulas.adamw, "p g m v lr t", (0, 2, 3)),
    "lion": Case(formulas.lion, "p g m lr", (0, 2)),
    "all_finite": Case(formulas.all_finite, "g", (None,)),
    "gelu": Case(formulas.gelu, "x"),
    "dropout": Case(formulas.dropout, "x seed draw step"),
}
"""Names of operands as in OPERANDS, not as in the formula."""


SCALAR = {n for n, case in CASES.items() if {OPERANDS[name][0] for name in case.operands.split()} == {"scalar"}}
"""Of numbers alone: Numba has no kernel for them, and they are computed whatever the shape."""


def summing(case: Case) -> bool:
    """Is there a sum or a maximum in it?"""
    found = operands(case, "float32", (2, 3), 0, 0.0, [aligned])
    graph = trace(case.formula, classify([a.shape for a in found], [a.dtype.name for a in found]))
    return not all(is_map(graph, output) for output in graph.outputs)


ALIKE = {n for n, case in CASES.items() if case.operands.split() in (["x"], ["dy", "x", "y"])}
ALIKE -= {"Tanh", "Tanh'", "Softmax", "Softmax'", "gelu"}
"""Activations without operands of their own: their kernels differ in the expression alone, so they are not tried in
every layout and type."""


def subclasses(base: type) -> set[type]:
    """The library's own."""
    package = importlib.import_module(base.__module__.rpartition(".")[0])
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    own = [child for child in base.__subclasses__() if child.__module__.startswith("gpunet.")]
    return {one for child in own for one in (child, *subclasses(child))}


# ---- operands


def aligned(shape, dtype):
    return np.empty(shape, dtype)


def stepped(shape, dtype):
    return np.empty((*shape[:-1], 2 * shape[-1]), dtype)[..., ::2]


def backwards(shape, dtype):
    return np.empty(shape, dtype)[..., ::-1]


def fortran(shape, dtype):
    return np.empty(shape, dtype, order="F")


def unaligned(shape, dtype):
    return np.empty(math.prod(shape) * np.dtype(dtype).itemsize + 1, np.uint8)[1:].view(dtype).reshape(shape)


def gate(shape, dtype):
    return np.empty((*shape[:-1], shape[-1] + 5), dtype)[..., 2:-3]


def spaced(shape, dtype):
    return np.empty((2 * shape[0], *shape[1:]), dtype)[::2]


def swapped(shape, dtype):
    return np.moveaxis(np.empty((shape[-2], *shape[:-2], shape[-1]), dtype), 0, -2)


def repeated(shape, dtype):
    return np.lib.stride_tricks.as_strided(aligned(shape, dtype), strides=(0, *aligned(shape, dtype).strides[1:]))


COPIED = [aligned, stepped, backwards, fortran, unaligned]
"""Layouts that a kernel for contiguous operands serves, by copying some."""
ROWS = [gate, spaced, swapped, repeated]
"""Rows that are whole: a kernel of their own reads them where they lie."""
SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, -1e-310, 1e4, -1e4, 1e30, -1e30]


@st.composite
def shapes(draw, whole_rows: bool):
    """0 to 3 leading axes and k; at least two rows where these shall lie apart."""
    k = draw(st.integers(1, 40) | st.sampled_from([64, 100, 513]))
    most = max(2, 20000 // k)
    first = st.integers(2 if whole_rows else 0, min(most, 70)) | st.integers(2, min(most, 300))
    rest = draw(st.lists(st.integers(1 if whole_rows else 0, 4), max_size=2))
    lead = (max(2 * whole_rows, draw(first) // max(1, math.prod(rest))), *rest)
    return (*lead, k) if whole_rows or draw(st.integers(0, 5)) else (k,)


def values(rng: np.random.Generator, law: str, shape: tuple[int, ...], k: int, dtype: str, special: float) -> Any:
    """Numbers of an operand."""
    if law == "bool":
        return rng.random(shape) < 0.7
    if law == "label":
        return np.where(rng.random(shape) < special, rng.choice([-1, k]), rng.integers(0, k, shape)).astype(np.int32)
    if law == "key":
        return rng.integers(0, 2**32, shape)
    if law == "count":
        return np.asarray(rng.integers(1, 10000, shape), dtype)
    if law == "below one half":
        return np.asarray(rng.random(shape) / 2, dtype)
    x = rng.random(shape) if law == "uniform" else rng.standard_normal(shape)
    with np.errstate(over="ignore"):
        x = np.where(rng.random(shape) < special, rng.choice(SPECIAL, shape), x).astype(dtype)
    if law == "above four":
        return np.abs(x) + x.dtype.type(4)
    return np.abs(x) if law == "positive" else x


def operands(case: Case, dtype: str, shape: tuple[int, ...], seed: int, special: float, layouts: list) -> list:
    """Arrays for the names of a case, the full ones laid out in turn, some of them read-only."""
    rng, sizes, found = np.random.default_rng(seed), {"full": shape, "row": (*shape[:-1], 1), "col": shape[-1:]}, []
    for number, name in enumerate(case.operands.split()):
        kind, law = OPERANDS[name]
        x = values(rng, law, sizes.get(kind, ()), shape[-1], dtype, special)
        make = layouts[number % len(layouts)]
        if kind == "full" and (shape[-1] > 1 or make in ROWS):  # a column's rows are whole however it lies
            laid = make(shape, x.dtype)
            laid = gate(shape, x.dtype) if make in ROWS and laid.flags.c_contiguous else laid
            laid[...] = x
            x = laid
        x = np.asarray(x)
        if number % 3 == 1:
            x.flags.writeable = False
        found.append(x)
    return found


@st.composite
def layouts(draw, way: str):
    """Layouts for full operands, in turn."""
    return draw(st.lists(st.sampled_from(ROWS if way == "whole rows" else COPIED), min_size=1, max_size=4))


specials = st.sampled_from([0, 0, 0.01, 0.3])
"""The share of special values."""


def is_map(graph: Graph, output: int) -> bool:
    """No sum or maximum on the way to it?"""
    node = graph.nodes[output]
    return node.op not in ("sum", "mean", "max", "total", "column_sum") and all(is_map(graph, a) for a in node.args)


def as_tuple(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


SUMMING = {name for name, case in CASES.items() if summing(case)}
