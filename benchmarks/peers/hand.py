"""NumPy and Numba by hand: the fastest step of a ReLU network that we know how to write in Python.

Parameters and gradients lie in one flat array each, all buffers are allocated beforehand, products go straight into
their gradients, the first layer has no input gradient, and what lies between two products is one pass.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from problems import BETA1, BETA2, EPS, Problem
from race import Contender

f32 = np.float32
# NaN and infinity are kept: neither nnan nor ninf. With Numba's own error model a division is not vectorised.
kernel = njit(fastmath={"nsz", "arcp", "contract", "reassoc"}, error_model="numpy", nogil=True, cache=True)


class Network:
    """Values, gradients and buffers. W[l], b[l], dW[l], db[l] are views of the flat p and g."""

    def __init__(self, problem: Problem):
        self.problem, self.t = problem, 0
        self.p = np.concatenate([a.ravel() for a in problem.initial])
        self.g, self.m, self.v = (np.zeros_like(self.p) for _ in range(3))
        shapes = [a.shape for a in problem.initial]
        ends = np.cumsum([math.prod(s) for s in shapes])[:-1]
        flat = (np.split(self.p, ends), np.split(self.g, ends))
        values, grads = ([a.reshape(s) for a, s in zip(parts, shapes, strict=True)] for parts in flat)
        self.W, self.b, self.dW, self.db = values[0::2], values[1::2], grads[0::2], grads[1::2]
        self.last = len(self.W) - 1
        self.h, self.d = ([np.empty((problem.batch, k), f32) for k in problem.widths[1:]] for _ in range(2))

    def forward(self, i: int) -> list[Any]:
        """-> the inputs of all layers; h[last] has the last product, without its bias."""
        inputs = [self.problem.x[i], *self.h[:-1]]
        for k in range(self.last):
            np.matmul(inputs[k], self.W[k], self.h[k])
            bias_relu(self.h[k], self.b[k])
        np.matmul(inputs[-1], self.W[-1], self.h[-1])
        return inputs

    def train(self, i: int) -> Any:
        inputs = self.forward(i)
        loss = cross_entropy(self.h[-1], self.b[-1], self.problem.y[i], self.d[-1], self.db[-1])
        for k in range(self.last, 0, -1):
            np.matmul(inputs[k].T, self.d[k], self.dW[k])
            np.matmul(self.d[k], self.W[k].T, self.d[k - 1])
            relu_backward(self.d[k - 1], inputs[k], self.db[k - 1])
        np.matmul(inputs[0].T, self.d[0], self.dW[0])
        self.update()
        return loss

    def update(self) -> None:
        lr = self.problem.learning_rate
        if self.problem.optimizer == "sgd":
            sgd(self.p, self.g, f32(lr))
            return
        self.t += 1
        rate, correction = lr / (1 - BETA1**self.t), 1 / math.sqrt(1 - BETA2**self.t)
        adam(self.p, self.g, self.m, self.v, f32(rate), f32(correction), f32(BETA1), f32(BETA2), f32(EPS))

    def infer(self, i: int) -> Any:
        self.forward(i)
        bias(self.h[-1], self.b[-1])
        return self.h[-1]


def train(problem: Problem) -> Contender:
    return Contender(Network(problem).train)


def infer(problem: Problem) -> Contender:
    return Contender(Network(problem).infer)


@kernel
def bias(h, b):
    """h = h + b"""
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            h[i, j] += b[j]


@kernel
def bias_relu(h, b):
    """h = max(h + b, 0)"""
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            z = h[i, j] + b[j]
            h[i, j] = z if z > 0 else f32(0)


@kernel
def relu_backward(d, y, db):
    """d = d where y > 0, else 0      db = Σ d"""
    for j in range(d.shape[1]):
        db[j] = f32(0)
    for i in range(d.shape[0]):
        for j in range(d.shape[1]):
            dz = d[i, j] if y[i, j] > 0 else f32(0)
            d[i, j] = dz
            db[j] += dz


@kernel
def cross_entropy(z, b, y, d, db):
    """z = z + b      -> mean of log Σ exp z - z_y      d = (softmax z - onehot y) / n      db = Σ d"""
    n, k = z.shape
    inverse, loss = f32(1 / n), 0.0
    for j in range(k):
        db[j] = f32(0)
    for i in range(n):
        top = f32(-np.inf)
        for j in range(k):
            z[i, j] += b[j]
            top = max(top, z[i, j])
        s = f32(0)
        for j in range(k):
            d[i, j] = np.exp(z[i, j] - top)
            s += d[i, j]
        loss += np.log(s) - (z[i, y[i]] - top)
        r = inverse / s
        for j in range(k):
            d[i, j] *= r
        d[i, y[i]] -= inverse
        for j in range(k):
            db[j] += d[i, j]
    return loss / n


@kernel
def adam(p, g, m, v, rate, correction, beta1, beta2, eps):
    """p, m, v in one pass"""
    rest1, rest2 = f32(1) - beta1, f32(1) - beta2
    for i in range(p.size):  # values in locals: with m[i] read back, three times slower
        gi = g[i]
        mi = beta1 * m[i] + rest1 * gi
        vi = beta2 * v[i] + rest2 * gi * gi
        m[i] = mi
        v[i] = vi
        p[i] -= rate * mi / (np.sqrt(vi) * correction + eps)


@kernel
def sgd(p, g, rate):
    """p = p - rate g"""
    for i in range(p.size):
        p[i] -= rate * g[i]
