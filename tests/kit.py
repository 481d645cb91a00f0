"""Shared by the suites: the error metric, drawing of inputs, running a layer once."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from layer_specs import LAYERS as LAYERS
from spec import LayerSpec

from gpunet import layers, losses, optim
from gpunet.backend import Backend

EPS = {"float32": np.finfo(np.float32).eps, "float64": np.finfo(np.float64).eps}
TOLERANCE = {"float32": 2e-6, "float64": 1e-12}


def error(a: Any, b: Any) -> float:
    """max|a - b| / max|b|; shapes must agree, NaN must stand at the same places."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
    assert np.array_equal(np.isnan(a), np.isnan(b)), "NaN at different places"
    if a.size == 0:
        return 0.0
    return float(np.nanmax(np.abs(a - b)) / max(np.nanmax(np.abs(b)), 1e-30))


def draw(seed: int, *shape: int) -> np.ndarray:
    """Normal numbers that stay clear of 0, where ReLU has its kink."""
    x = np.random.default_rng(seed).standard_normal(shape)
    return np.where(np.abs(x) < 1e-2, 1e-2, x)


def built(spec: LayerSpec, backend: Backend, dtype: str) -> layers.Sequential:
    """The layer as a model, its parameters drawn in float64 and rounded to dtype."""
    layer = spec.make()
    model = layer if isinstance(layer, layers.Sequential) else layers.Sequential(layer)
    model.build(spec.shape[1:], device=backend, dtype=dtype, seed=3)
    model.set_weights({p.name: draw(11, *p.shape) / 2 for p in model.store.parameters})
    return model


def run(model: layers.Sequential, x: Any, dy: Any, observe: Any = None) -> dict[str, np.ndarray]:
    """Outputs and gradients of one training pass, as host arrays. x and dy are host or own arrays."""
    backend = model.backend
    x, dy = backend.asarray(x, model.dtype), backend.asarray(dy, model.dtype)
    ctx = model.context(training=True, step=1, seed=7, needs_input_grad=True, observe=observe)
    y, saved = model.forward(x, ctx)
    result = {"y": np.array(backend.to_numpy(y))}
    dx = model.backward(dy, saved, ctx)
    return result | {"dx": np.array(backend.to_numpy(dx))} | model.get_gradients()


@dataclass(frozen=True)
class LossSpec:
    """A loss and (value, gradient) by an independent formula in float64."""

    name: str
    make: Callable[[], losses.Loss]
    shape: tuple[int, ...]
    target: Callable[[tuple[int, ...]], np.ndarray]
    reference: Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]


def cross_entropy(z: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    onehot = np.eye(z.shape[-1])[y]
    log_p = z - np.logaddexp.reduce(z, axis=-1, keepdims=True)
    return -np.vdot(onehot, log_p) / y.size, (np.exp(log_p) - onehot) / y.size


def binary_cross_entropy(z: np.ndarray, t: np.ndarray) -> tuple[float, np.ndarray]:
    value = t * np.logaddexp(0, -z) + (1 - t) * np.logaddexp(0, z)
    return np.mean(value), (np.exp(-np.logaddexp(0, -z)) - t) / np.size(z)


def labels(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(5).integers(0, shape[-1], shape[:-1]).astype(np.int32)


LOSSES = [
    LossSpec("cross_entropy", losses.CrossEntropy, (6, 4), labels, cross_entropy),
    LossSpec("cross_entropy_time", losses.CrossEntropy, (3, 2, 4), labels, cross_entropy),
    LossSpec(
        "mean_squared_error",
        losses.MeanSquaredError,
        (6, 4),
        lambda s: draw(6, *s),
        lambda p, t: (np.square(p - t).mean(), 2 * (p - t) / p.size),
    ),
    LossSpec(
        "binary_cross_entropy",
        losses.BinaryCrossEntropy,
        (6, 4),
        lambda s: np.random.default_rng(6).random(s),
        binary_cross_entropy,
    ),
]


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer and its update of (p, g, state, t) by an independent formula in float64."""

    name: str
    make: Callable[[], optim.Optimizer]
    reference: Callable[[np.ndarray, np.ndarray, dict, int], np.ndarray]


def sgd_momentum(p, g, state, t):
    state["m"] = 0.9 * state.get("m", 0) + g
    return p - 0.1 * state["m"]


def adam(p, g, state, t):
    state["m"] = 0.8 * state.get("m", 0) + 0.2 * g
    state["v"] = 0.95 * state.get("v", 0) + 0.05 * np.square(g)
    corrected = np.sqrt(state["v"] / (1 - 0.95**t))
    return p - 0.01 * (state["m"] / (1 - 0.8**t)) / (corrected + 1e-7)


def adam_default(p, g, state, t):
    """β₂ = 0.999: 1 - β₂ᵗ must not be computed from β₂ᵗ in float32."""
    state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
    state["v"] = 0.999 * state.get("v", 0) + 0.001 * np.square(g)
    return p - 1e-3 * (state["m"] / (1 - 0.9**t)) / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)


OPTIMIZERS = [
    OptimizerSpec("sgd", lambda: optim.SGD(0.1), lambda p, g, state, t: p - 0.1 * g),
    OptimizerSpec("sgd_momentum", lambda: optim.SGD(0.1, momentum=0.9), sgd_momentum),
    OptimizerSpec("adam_default", optim.Adam, adam_default),
    OptimizerSpec("adam", lambda: optim.Adam(0.01, beta1=0.8, beta2=0.95, eps=1e-7), adam),
]


def beside(test: str, name: str) -> ModuleType:
    """A module in a file near a test's own, in a folder that is no package."""
    path = Path(test).parent / name
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
