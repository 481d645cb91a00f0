"""Formulas of layers that exist and of layers to come, with operands and an independent float64 result."""

from __future__ import annotations

import math

import numpy as np

from gpunet.formula import column_sum, erf, index, random_bits, sigmoid, total

LAST = {"axis": -1, "keepdims": True}


def batchnorm_mean(xp, x, inverse_n):
    return column_sum(x * inverse_n)


def batchnorm_variance(xp, x, mean, inverse_n):
    return column_sum((x - mean) * (x - mean) * inverse_n)


def batchnorm_forward(xp, x, mean, variance, scale, shift):
    return (x - mean) / xp.sqrt(variance + 1e-5) * scale + shift


def batchnorm_backward(xp, dy, x, mean, r, scale, mean_dy, mean_dy_n):
    n = (x - mean) * r
    return scale * r * (dy - mean_dy - n * mean_dy_n), column_sum(dy * n), column_sum(dy)


def layernorm(xp, x, scale, shift):
    c = x - xp.mean(x, **LAST)
    return c / xp.sqrt(xp.mean(c * c, **LAST) + 1e-5) * scale + shift


def layernorm_backward(xp, dy, x, scale):
    c = x - xp.mean(x, **LAST)
    r = 1 / xp.sqrt(xp.mean(c * c, **LAST) + 1e-5)
    n, d = c * r, dy * scale
    return r * (d - xp.mean(d, **LAST) - n * xp.mean(d * n, **LAST)), column_sum(dy * n), column_sum(dy)


def masked_softmax(xp, scores, mask):
    scores = xp.where(mask, scores, -math.inf)
    e = xp.exp(scores - xp.max(scores, **LAST))
    return e / xp.sum(e, **LAST)


def causal_softmax(xp, scores, position):
    return masked_softmax(xp, scores, index(scores) <= position)


def lstm_gates(xp, i, f, g, o, c):
    c = sigmoid(f) * c + sigmoid(i) * xp.tanh(g)
    return sigmoid(o) * xp.tanh(c), c


def adamw(xp, p, g, m, v, lr, t):
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * (g * g)
    c1, c2 = -xp.expm1(t * math.log(0.9)), -xp.expm1(t * math.log(0.999))
    return p * (1 - lr * 0.01) - lr / c1 * m / (xp.sqrt(v) / xp.sqrt(c2) + 1e-8), m, v


def lion(xp, p, g, m, lr):
    return p - lr * (xp.sign(0.9 * m + 0.1 * g) + 0.01 * p), 0.99 * m + 0.01 * g


def all_finite(xp, g):
    return total(xp.where(xp.isfinite(g), 0.0, 1.0))


def gelu(xp, x):
    return 0.5 * x * (1 + erf(x * math.sqrt(0.5)))


def dropout(xp, x, seed, draw, step):
    return xp.where(random_bits(x, seed, draw, step) >= 2**31, 2 * x, 0.0)


def normal(*shape):
    return np.random.default_rng(sum(shape) + len(shape)).standard_normal(shape)


def scalar(value):
    return np.asarray(value)


def softmax(s):
    e = np.exp(s - np.nanmax(s, axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def logistic(x):
    return np.exp(-np.logaddexp(0, -x))


X, DY, K = normal(6, 5), normal(5, 7)[:, :6].T + 1, normal(5)
SCORES, MASK = normal(2, 3, 4, 4), np.random.default_rng(0).random((2, 1, 1, 4)) > 0.3
MASK[..., 0] = True
GATES = normal(6, 20)
MEAN, VAR = X.mean(0), X.var(0)
NORMALIZED = (X - MEAN) / np.sqrt(VAR + 1e-5)
ROWS = (X - X.mean(1, keepdims=True)) / np.sqrt(X.var(1, keepdims=True) + 1e-5)
LN_D = DY * K
LN_DX = (LN_D - LN_D.mean(1, keepdims=True) - ROWS * (LN_D * ROWS).mean(1, keepdims=True)) / np.sqrt(
    X.var(1, keepdims=True) + 1e-5
)
I, F, G, O = (GATES[:, 5 * i : 5 * i + 5] for i in range(4))  # noqa: E741 - strided, as slices of one product
CELL = logistic(F) * X + logistic(I) * np.tanh(G)
P, GRAD, M, V = normal(50), normal(51)[:50], normal(52)[:50], np.square(normal(53)[:50])
M2, V2 = 0.9 * M + 0.1 * GRAD, 0.999 * V + 0.001 * GRAD**2
R = 1 / np.sqrt(VAR + 1e-5)

CASES = {
    "batchnorm_mean": (batchnorm_mean, (X, scalar(1 / 6)), (MEAN,)),
    "batchnorm_variance": (batchnorm_variance, (X, MEAN, scalar(1 / 6)), (VAR,)),
    "batchnorm_forward": (batchnorm_forward, (X, MEAN, VAR, K, K), (NORMALIZED * K + K,)),
    "batchnorm_backward": (
        batchnorm_backward,
        (DY, X, MEAN, R, K, DY.mean(0), (DY * NORMALIZED).mean(0)),
        (
            K * R * (DY - DY.mean(0) - NORMALIZED * (DY * NORMALIZED).mean(0)),
            np.einsum("nk,nk->k", DY, NORMALIZED),
            DY.sum(0),
        ),
    ),
    "layernorm": (layernorm, (X, K, K), (ROWS * K + K,)),
    "layernorm_backward": (layernorm_backward, (DY, X, K), (LN_DX, np.einsum("nk,nk->k", DY, ROWS), DY.sum(0))),
    "masked_softmax": (masked_softmax, (SCORES, MASK), (softmax(np.where(MASK, SCORES, -np.inf)),)),
    "causal_softmax": (
        causal_softmax,
        (SCORES, np.arange(4, dtype=np.int32).reshape(4, 1)),
        (softmax(np.where(np.tri(4) > 0, SCORES, -np.inf)),),
    ),
    "lstm_gates": (lstm_gates, (I, F, G, O, X), (logistic(O) * np.tanh(CELL), CELL)),
    "adamw": (
        adamw,
        (P, GRAD, M, V, scalar(0.1), scalar(3.0)),
        (P * 0.999 - 0.1 * (M2 / (1 - 0.9**3)) / (np.sqrt(V2 / (1 - 0.999**3)) + 1e-8), M2, V2),
    ),
    "lion": (
        lion,
        (P, GRAD, M, scalar(0.1)),
        (P - 0.1 * (np.sign(0.9 * M + 0.1 * GRAD) + 0.01 * P), 0.99 * M + 0.01 * GRAD),
    ),
    "all_finite": (all_finite, (np.array([1.0, np.inf, np.nan, -np.inf, 2.0]),), (np.asarray(3.0),)),
    "gelu": (gelu, (X,), (np.vectorize(lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2)(X),)),
}
