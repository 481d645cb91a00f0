"""gpunet on a GPU, as a user writes it; the step is captured as a CUDA graph, or not."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from layers import GELU, LayerNorm
from problems import BETA1, BETA2, EPS, LAYERNORM_EPS, Problem
from race import Contender

import gpunet as gn
from cuda_peers import Entrant, NotAvailable, Setting
from gpunet.backend import Backend
from gpunet.errors import ArgumentError, DeviceError
from gpunet.initializers import Zeros
from gpunet.layer import Layer
from gpunet.layers import Dense, Dropout, ReLU, Sequential

DEVICES = {"float32": "cuda", "tf32": "cuda:tf32", "bfloat16": "cuda"}
DTYPES = {"float32": "float32", "tf32": "float32", "bfloat16": "mixed_bfloat16"}


def backend_of(setting: Setting) -> Backend:
    """The device for a precision. Raises NotAvailable if this gpunet does not know it."""
    if setting.device == "cpu":
        if setting.precision == "tf32":
            raise NotAvailable("a CPU has no TF32")
        return gn.device("cpu")
    try:
        return gn.device(DEVICES[setting.precision])
    except DeviceError as error:
        raise NotAvailable(str(error)) from error


def model_of(problem: Problem, setting: Setting) -> Sequential:
    """The network. Raises NotAvailable if this gpunet refuses the data type."""
    layers: list[Layer] = []
    for width in problem.widths[1:-1]:
        layers.append(Dense(width, weight_init=Zeros()))  # replaced below: drawing 200 million numbers takes seconds
        layers += [ReLU()] if problem.hidden == "relu" else [LayerNorm(eps=LAYERNORM_EPS), GELU()]
        if problem.dropout:
            layers.append(Dropout(problem.dropout))
    model = Sequential(*layers, Dense(problem.widths[-1], weight_init=Zeros()))
    try:
        model.build(problem.widths[:1], device=backend_of(setting), dtype=DTYPES[setting.precision])
    except ArgumentError as error:
        raise NotAvailable(str(error)) from error
    model.set_weights(dict(zip(model.get_weights(), problem.initial, strict=True)))
    return model


def train(problem: Problem, setting: Setting) -> Entrant:
    """TrainStep with its defaults."""
    return trained_by(problem, setting, {})


def train_eager(problem: Problem, setting: Setting) -> Entrant:
    """TrainStep(..., capture=False)."""
    if setting.device == "cpu":
        raise NotAvailable("on a CPU nothing is captured: this is gpunet")
    if not can_capture():
        raise NotAvailable("this gpunet has no TrainStep(..., capture=False): gpunet is eager")
    return trained_by(problem, setting, {"capture": False})


def can_capture() -> bool:
    return "capture" in inspect.signature(gn.TrainStep).parameters


def trained_by(problem: Problem, setting: Setting, options: dict[str, Any]) -> Entrant:
    model = model_of(problem, setting)
    optimizer = gn.optim.Adam(problem.learning_rate, beta1=BETA1, beta2=BETA2, eps=EPS)
    step = gn.TrainStep(model, gn.losses.CrossEntropy(), optimizer, **options)
    xs, ys = problem.x, [y.astype(np.int32) for y in problem.y]  # the type it computes with
    if not setting.host_inputs:
        backend = model.backend
        xs, ys = [backend.asarray(x, "float32") for x in xs], [backend.asarray(y) for y in ys]

    def set_learning_rate(value: float) -> None:
        optimizer.learning_rate = value

    return Entrant(Contender(lambda i: step(xs[i], ys[i]), model.backend.synchronize), set_learning_rate)


def gradients(problem: Problem, setting: Setting, rows: int) -> dict[str, Any]:
    """The loss and all gradients of the first rows, as float32 host arrays.

    The step runs four times at learning rate 0: what is returned is from a captured step, where steps are captured.
    """
    model = model_of(problem, setting)
    step = gn.TrainStep(model, gn.losses.CrossEntropy(), gn.optim.SGD(0.0))
    x, y = problem.x[0][:rows], problem.y[0][:rows].astype(np.int32)
    for _ in range(4):
        loss = step(x, y)
    return {"loss": np.array(float(loss))} | model.get_gradients()
