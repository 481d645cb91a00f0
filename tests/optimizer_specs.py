"""One spec for each optimizer: its update by an independent formula."""

from __future__ import annotations

import numpy as np
from spec import OptimizerSpec

from gpunet import optim


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
