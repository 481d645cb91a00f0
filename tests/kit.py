"""Shared by the suites: the error metric, drawing of inputs, running a layer once."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from layer_specs import LAYERS as LAYERS
from loss_specs import LOSSES as LOSSES
from optimizer_specs import OPTIMIZERS as OPTIMIZERS

from gpunet import layers
from gpunet.backend import Backend
from gpunet.testing.rig import Rig, batch
from gpunet.testing.specs import Case

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


def inputs(case: Case) -> np.ndarray:
    """A batch for a layer: normal numbers, or indices for one that takes those."""
    model = layers.Sequential(case.make())
    return batch(case, model, 0)


def built(case: Case, backend: Backend, dtype: str) -> layers.Sequential:
    """The layer as a model, its parameters drawn in float64 and rounded to dtype."""
    return Rig(case, backend, dtype, seed=3).model


def run(model: layers.Sequential, x: Any, dy: Any, observe: Any = None) -> dict[str, np.ndarray]:
    """Outputs and gradients of one training pass, as host arrays; "dx" unless x are indices.

    x and dy are host or own arrays.
    """
    backend = model.backend
    x, dy = model.convert(x, backend), backend.asarray(dy, model.dtype)
    ctx = model.context(training=True, step=1, seed=7, needs_input_grad=True, observe=observe)
    y, saved = model.forward(x, ctx)
    result = {"y": np.array(backend.to_numpy(y))}
    dx = model.backward(dy, saved, ctx)
    assert (dx is None) == (model.indices() is not None)
    if dx is not None:
        result["dx"] = np.array(backend.to_numpy(dx))
    return result | model.get_gradients()


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
