"""Thinc: a chain of its layers, as a user writes it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from problems import BETA1, BETA2, EPS, Problem
from race import Contender
from thinc.api import SGD, Adam, CategoricalCrossentropy, Relu, Softmax, chain


def model_of(problem: Problem) -> Any:
    hidden = [Relu(nO=o, nI=i) for i, o in pairwise(problem.widths[:-1])]
    model = chain(*hidden, Softmax(nO=problem.widths[-1], nI=problem.widths[-2])).initialize()
    for layer, W, b in zip(model.layers, problem.initial[0::2], problem.initial[1::2], strict=True):
        layer.set_param("W", np.ascontiguousarray(W.T))  # (O, I)
        layer.set_param("b", b.copy())
    return model


def train(problem: Problem) -> Contender:
    model, loss = model_of(problem), CategoricalCrossentropy()
    lr, plain = problem.learning_rate, {"L2": 0.0, "grad_clip": 0.0, "use_averages": False}
    rule = Adam(lr, beta1=BETA1, beta2=BETA2, eps=EPS, **plain) if problem.optimizer == "adam" else SGD(lr, **plain)
    rows = np.arange(problem.batch)

    def step(i: int) -> Any:
        probability, backprop = model.begin_update(problem.x[i])
        backprop(loss.get_grad(probability, problem.y[i]))
        model.finish_update(rule)
        return -np.log(probability[rows, problem.y[i]]).mean()  # what its own loss squares instead

    return Contender(step)
