"""gpunet on the device "cpu", as a user writes it."""

from __future__ import annotations

from typing import Any

import numpy as np
from layers import GELU, LayerNorm
from problems import BETA1, BETA2, EPS, LAYERNORM_EPS, Problem
from race import Contender

import gpunet as gn
from gpunet.backend import Backend
from gpunet.layer import Layer
from gpunet.layers import Dense, Dropout, ReLU, Sequential


def model_of(problem: Problem, device: str | Backend = "cpu") -> Sequential:
    layers: list[Layer] = []
    for width in problem.widths[1:-1]:
        layers.append(Dense(width))
        layers += [ReLU()] if problem.hidden == "relu" else [LayerNorm(eps=LAYERNORM_EPS), GELU()]
        if problem.dropout:
            layers.append(Dropout(problem.dropout))
    model = Sequential(*layers, Dense(problem.widths[-1]))
    model.build(problem.widths[:1], device=device)
    model.set_weights(dict(zip(model.get_weights(), problem.initial, strict=True)))
    return model


def train(problem: Problem, device: str | Backend = "cpu") -> Contender:
    model, lr = model_of(problem, device), problem.learning_rate
    rules = {"adam": lambda: gn.optim.Adam(lr, beta1=BETA1, beta2=BETA2, eps=EPS), "sgd": lambda: gn.optim.SGD(lr)}
    step = gn.TrainStep(model, gn.losses.CrossEntropy(), rules[problem.optimizer]())
    labels = [y.astype(np.int32) for y in problem.y]  # the type it computes with
    return Contender(lambda i: step(problem.x[i], labels[i]), model.backend.synchronize)


def infer(problem: Problem, device: str | Backend = "cpu") -> Contender:
    """forward in a context of its own."""
    model = model_of(problem, device)

    def step(i: int) -> Any:
        with model.backend.scope():
            y, _ = model.forward(problem.x[i], model.context(training=False))
        return y

    return Contender(step, model.backend.synchronize)


def predict(problem: Problem) -> Contender:
    """predict, which cuts its input into batches and returns a host array."""
    model = model_of(problem)
    return Contender(lambda i: model.predict(problem.x[i], batch_size=problem.batch))
