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


def sgd_dampened(p, g, state, t):
    g = g + 0.01 * p
    state["m"] = g if t == 1 else 0.9 * state.get("m", 0) + 0.6 * g
    return p - 0.1 * state["m"]


def sgd_nesterov(p, g, state, t):
    g = g + 0.01 * p
    state["m"] = 0.9 * state.get("m", 0) + g
    return p - 0.1 * (g + 0.9 * state["m"])


def adam_amsgrad(p, g, state, t):
    """PyTorch's: the largest v before its bias is corrected."""
    g = g + 0.02 * p
    state["m"] = 0.8 * state.get("m", 0) + 0.2 * g
    state["v"] = 0.9 * state.get("v", 0) + 0.1 * np.square(g)
    state["u"] = np.fmax(state.get("u", 0), state["v"])
    return p - 0.01 * (state["m"] / (1 - 0.8**t)) / (np.sqrt(state["u"] / (1 - 0.9**t)) + 1e-8)


def adamw(p, g, state, t):
    return adam_default(p, g, state, t) - 1e-3 * 0.01 * p


def rmsprop(p, g, state, t):
    state["v"] = 0.99 * state.get("v", 0) + 0.01 * np.square(g)
    return p - 0.01 * g / (np.sqrt(state["v"]) + 1e-8)


def rmsprop_centered(p, g, state, t):
    g = g + 0.02 * p
    state["v"] = 0.9 * state.get("v", 0) + 0.1 * np.square(g)
    state["a"] = 0.9 * state.get("a", 0) + 0.1 * g
    state["b"] = 0.8 * state.get("b", 0) + g / (np.sqrt(state["v"] - np.square(state["a"])) + 1e-3)
    return p - 0.01 * state["b"]


def adagrad(p, g, state, t):
    g = g + 0.02 * p
    state["s"] = state.get("s", 0) + np.square(g)
    return p - 0.1 / (1 + 0.3 * (t - 1)) * g / (np.sqrt(0.5 + state["s"]) + 1e-10)


def lion(p, g, state, t):
    m = state.get("m", 0)
    mixed = 0.9 * m + 0.1 * g
    state["m"] = 0.99 * m + 0.01 * g
    return p * (1 - 1e-3) - 0.01 * np.where(mixed > 0, 1.0, np.where(mixed < 0, -1.0, 0.0))


def adadelta(p, g, state, t):
    g = g + 0.02 * p
    state["v"] = 0.9 * state.get("v", 0) + 0.1 * np.square(g)
    d = g * np.sqrt((state.get("u", 0) + 1e-6) / (state["v"] + 1e-6))
    state["u"] = 0.9 * state.get("u", 0) + 0.1 * np.square(d)
    return p - d


def radam(beta2, weight_decay):
    def update(p, g, state, t):
        g = g + weight_decay * p
        state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
        state["v"] = beta2 * state.get("v", 0) + (1 - beta2) * np.square(g)
        m, most = state["m"] / (1 - 0.9**t), 2 / (1 - beta2) - 1
        length = most - 2 * t * beta2**t / (1 - beta2**t)
        if length <= 5:
            return p - 1e-3 * m
        r = np.sqrt((length - 4) * (length - 2) * most / ((most - 4) * (most - 2) * length))
        return p - 1e-3 * m * r * np.sqrt(1 - beta2**t) / (np.sqrt(state["v"]) + 1e-8)

    return update


def nadam(weight_decay, momentum_decay, decoupled):
    """The product of all μ as PyTorch keeps it: factor by factor."""

    def mu(t):
        return 0.9 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def update(p, g, state, t):
        lr, product = 2e-3, np.prod([mu(i) for i in range(1, t + 1)])
        p, g = (p - lr * weight_decay * p, g) if decoupled else (p, g + weight_decay * p)
        state["m"] = 0.9 * state.get("m", 0) + 0.1 * g
        state["v"] = 0.999 * state.get("v", 0) + 0.001 * np.square(g)
        ahead = mu(t + 1)
        step = (1 - mu(t)) / (1 - product) * g + ahead / (1 - product * ahead) * state["m"]
        return p - lr * step / (np.sqrt(state["v"] / (1 - 0.999**t)) + 1e-8)

    return update


OPTIMIZERS = [
    OptimizerSpec("nadam", optim.NAdam, nadam(0.0, 4e-3, False)),
    OptimizerSpec("nadam_decay", lambda: optim.NAdam(weight_decay=0.02, momentum_decay=0.5), nadam(0.02, 0.5, False)),
    OptimizerSpec(
        "nadam_decoupled",
        lambda: optim.NAdam(weight_decay=0.1, momentum_decay=0.0, decoupled_weight_decay=True),
        nadam(0.1, 0.0, True),
    ),
    OptimizerSpec("sgd", lambda: optim.SGD(0.1), lambda p, g, state, t: p - 0.1 * g),
    OptimizerSpec("sgd_decay", lambda: optim.SGD(0.1, weight_decay=0.2), lambda p, g, state, t: 0.98 * p - 0.1 * g),
    OptimizerSpec("sgd_momentum", lambda: optim.SGD(0.1, momentum=0.9), sgd_momentum),
    OptimizerSpec("sgd_dampened", lambda: optim.SGD(0.1, momentum=0.9, dampening=0.4, weight_decay=0.01), sgd_dampened),
    OptimizerSpec("sgd_nesterov", lambda: optim.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01), sgd_nesterov),
    OptimizerSpec("adam_default", optim.Adam, adam_default),
    OptimizerSpec("adam", lambda: optim.Adam(0.01, beta1=0.8, beta2=0.95, eps=1e-7), adam),
    OptimizerSpec(
        "adam_amsgrad",
        lambda: optim.Adam(0.01, beta1=0.8, beta2=0.9, weight_decay=0.02, amsgrad=True),
        adam_amsgrad,
    ),
    OptimizerSpec("adamw", optim.AdamW, adamw),
    OptimizerSpec("rmsprop", optim.RMSprop, rmsprop),
    OptimizerSpec(
        "rmsprop_centered",
        lambda: optim.RMSprop(0.01, alpha=0.9, eps=1e-3, centered=True, momentum=0.8, weight_decay=0.02),
        rmsprop_centered,
    ),
    OptimizerSpec(
        "adagrad",
        lambda: optim.Adagrad(0.1, lr_decay=0.3, weight_decay=0.02, initial_accumulator_value=0.5),
        adagrad,
    ),
    OptimizerSpec("lion", lambda: optim.Lion(0.01, weight_decay=0.1), lion),
    OptimizerSpec("adadelta", lambda: optim.Adadelta(weight_decay=0.02), adadelta),
    OptimizerSpec("radam", optim.RAdam, radam(0.999, 0.0)),
    OptimizerSpec("radam_short", lambda: optim.RAdam(beta2=0.8, weight_decay=0.02), radam(0.8, 0.02)),
    OptimizerSpec("radam_never", lambda: optim.RAdam(beta2=0.6), radam(0.6, 0.0)),
]
