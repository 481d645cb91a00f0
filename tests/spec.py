"""What the suites know of a layer, a loss, an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpunet.layer import Layer
from gpunet.losses import Loss
from gpunet.optim import Optimizer


@dataclass(frozen=True)
class LayerSpec:
    """A layer, the shape of a batch, and its output by an independent formula in float64.

    reference  (x, parameters by name, random bits per draw) -> y
    maps       only elementwise arithmetic: results agree within 4 eps
    """

    name: str
    make: Callable[[], Layer]
    shape: tuple[int, ...]
    reference: Callable[..., np.ndarray]
    maps: bool = False


@dataclass(frozen=True)
class LossSpec:
    """A loss and (value, gradient) by an independent formula in float64."""

    name: str
    make: Callable[[], Loss]
    shape: tuple[int, ...]
    target: Callable[[tuple[int, ...]], np.ndarray]
    reference: Callable[[np.ndarray, np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer and its update of (p, g, state, t) by an independent formula in float64."""

    name: str
    make: Callable[[], Optimizer]
    reference: Callable[[np.ndarray, np.ndarray, dict, int], np.ndarray]
