"""JAX: the whole step jitted, its state donated, batches on the device beforehand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from problems import BETA1, BETA2, EPS, LAYERNORM_EPS, Problem
from race import Contender


def logits_of(problem: Problem, parameters: list[Any], x: Any, key: Any) -> Any:
    """key  of dropout; None: no dropout"""
    a, rest = x, list(parameters)
    for _ in problem.widths[1:-1]:
        a = a @ rest.pop(0) + rest.pop(0)
        if problem.hidden == "relu":
            a = jax.nn.relu(a)
        else:
            a = jax.nn.gelu(layernorm(a, rest.pop(0), rest.pop(0)), approximate=True)
        if problem.dropout and key is not None:
            key, drawn = jax.random.split(key)
            keep = 1 - problem.dropout
            a = jnp.where(jax.random.bernoulli(drawn, keep, a.shape), a / keep, 0)
    return a @ rest[0] + rest[1]


def layernorm(x: Any, scale: Any, shift: Any) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + LAYERNORM_EPS) * scale + shift


def loss_of(problem: Problem, parameters: list[Any], x: Any, y: Any, key: Any) -> Any:
    logp = jax.nn.log_softmax(logits_of(problem, parameters, x, key))
    return -jnp.take_along_axis(logp, y[:, None], 1).mean()


def update(problem: Problem, p: list[Any], g: list[Any], m: list[Any], v: list[Any], t: Any) -> Any:
    """-> p, m, v"""
    lr = problem.learning_rate
    if problem.optimizer == "sgd":
        return [p - lr * g for p, g in zip(p, g, strict=True)], m, v
    m = [BETA1 * m + (1 - BETA1) * g for m, g in zip(m, g, strict=True)]
    v = [BETA2 * v + (1 - BETA2) * g * g for v, g in zip(v, g, strict=True)]
    rate, correction = lr / (1 - BETA1**t), 1 / jnp.sqrt(1 - BETA2**t)
    return [p - rate * m / (jnp.sqrt(v) * correction + EPS) for p, m, v in zip(p, m, v, strict=True)], m, v


def train(problem: Problem) -> Contender:
    xs, ys = [jnp.asarray(x) for x in problem.x], [jnp.asarray(y, jnp.int32) for y in problem.y]

    def whole(state: Any, x: Any, y: Any) -> Any:
        p, m, v, t, key = state
        key, dropout = jax.random.split(key) if problem.dropout else (key, None)
        loss, g = jax.value_and_grad(lambda p: loss_of(problem, p, x, y, dropout))(p)
        p, m, v = update(problem, p, g, m, v, t + 1)
        return (p, m, v, t + 1, key), loss

    compiled = jax.jit(whole, donate_argnums=0)
    slots = [[jnp.zeros(a.shape) for a in problem.initial] for _ in range(2 if problem.optimizer == "adam" else 0)]
    m, v = slots or ([], [])
    state = ([jnp.array(a) for a in problem.initial], m, v, jnp.float32(0), jax.random.key(0))

    def step(i: int) -> Any:
        nonlocal state
        state, loss = compiled(state, xs[i], ys[i])
        return loss

    return Contender(step, lambda: jax.block_until_ready(state))


def infer(problem: Problem) -> Contender:
    xs, parameters = [jnp.asarray(x) for x in problem.x], [jnp.asarray(a) for a in problem.initial]
    compiled = jax.jit(lambda parameters, x: logits_of(problem, parameters, x, None))
    newest = None

    def step(i: int) -> Any:
        nonlocal newest
        newest = compiled(parameters, xs[i])
        return newest

    return Contender(step, lambda: jax.block_until_ready(newest))
