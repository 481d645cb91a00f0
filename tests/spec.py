"""What the suites know of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from gpunet.layer import Layer


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
