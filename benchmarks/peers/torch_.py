"""PyTorch, eager, with the optimizer's fused kernel."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from problems import BETA1, BETA2, EPS, LAYERNORM_EPS, Problem
from race import Contender
from torch.nn.functional import cross_entropy


def model_of(problem: Problem) -> Any:
    layers: list[Any] = []
    for i, o in pairwise(problem.widths[:-1]):
        layers.append(torch.nn.Linear(i, o))
        if problem.hidden == "relu":
            layers.append(torch.nn.ReLU())
        else:
            layers += [torch.nn.LayerNorm(o, eps=LAYERNORM_EPS), torch.nn.GELU(approximate="tanh")]
        if problem.dropout:
            layers.append(torch.nn.Dropout(problem.dropout))
    model = torch.nn.Sequential(*layers, torch.nn.Linear(*problem.widths[-2:]))
    with torch.no_grad():
        for p, a in zip(model.parameters(), problem.initial, strict=True):
            p.copy_(torch.from_numpy(a.T))  # weights are (O, I)
    return model


def optimizer_of(problem: Problem, parameters: Any) -> Any:
    if problem.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=problem.learning_rate, betas=(BETA1, BETA2), eps=EPS, fused=True)
    return torch.optim.SGD(parameters, lr=problem.learning_rate, fused=True)


def train(problem: Problem, transform: Callable[[Any], Any] = lambda function: function) -> Contender:
    """transform  is applied to the function that gives the loss"""
    model = model_of(problem)
    optimizer = optimizer_of(problem, model.parameters())
    xs, ys = [torch.from_numpy(x) for x in problem.x], [torch.from_numpy(y) for y in problem.y]
    loss_of = transform(lambda x, y: cross_entropy(model(x), y))

    def step(i: int) -> Any:
        loss = loss_of(xs[i], ys[i])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Contender(step)


def infer(problem: Problem, transform: Callable[[Any], Any] = lambda function: function) -> Contender:
    """transform  is applied to the model"""
    xs = [torch.from_numpy(x) for x in problem.x]
    model = transform(model_of(problem).eval())

    def step(i: int) -> Any:
        with torch.inference_mode():
            return model(xs[i])

    return Contender(step)
