"""scikit-learn: MLPClassifier.partial_fit, one batch a call."""

from __future__ import annotations

from typing import Any

import numpy as np
from problems import BETA1, BETA2, EPS, Problem
from race import Contender
from sklearn.neural_network import MLPClassifier


def model_of(problem: Problem) -> Any:
    """Its first call makes the weights; they are then replaced, and the optimizer begins anew."""
    model = MLPClassifier(
        problem.widths[1:-1],
        solver=problem.optimizer,
        alpha=0,
        batch_size=problem.batch,
        learning_rate_init=problem.learning_rate,
        momentum=0,
        beta_1=BETA1,
        beta_2=BETA2,
        epsilon=EPS,
        shuffle=False,
    )
    model.partial_fit(problem.x[0], problem.y[0], classes=np.arange(problem.widths[-1]))
    del model._optimizer
    for own, initial in zip(
        model.coefs_ + model.intercepts_, problem.initial[0::2] + problem.initial[1::2], strict=True
    ):
        own[...] = initial
    return model


def train(problem: Problem) -> Contender:
    model = model_of(problem)
    return Contender(lambda i: model.partial_fit(problem.x[i], problem.y[i]).loss_)
