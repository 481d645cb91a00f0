"""Training runs that are stopped and go on."""

from __future__ import annotations

import numpy as np
from kit import draw

import gpunet as gn
from gpunet import layers, losses, optim, schedules
from gpunet.train.callbacks import Callback

X = draw(0, 70, 4).astype(np.float32)
Y = (X[:, 0] > X[:, 1]).astype(np.int64)


class Stop(Exception):
    pass


class StopAt(Callback):
    """Ends the run by an error after so many steps, as a crash would."""

    def __init__(self, steps):
        self.steps = steps

    last = True

    def on_step(self, run):
        if run.step.steps == self.steps:
            raise Stop


OPTIMIZERS = {
    "sgd": lambda: optim.SGD(0.1, momentum=0.9),
    "adam": lambda: optim.Adam(schedules.Cosine(0.05, steps=60)),
    "nadam": lambda: optim.NAdam(0.02, groups={"*.bias": {"weight_decay": 0.1, "learning_rate": 0.01}}),
    "function": lambda: optim.RAdam(lambda step: 0.05 / (1 + step)),
}


def trainer(optimizer="adam", seed=3, dtype="float32", **options):
    model = layers.Sequential(layers.Dense(8), layers.BatchNorm(), layers.ReLU(), layers.Dropout(0.2), layers.Dense(2))
    chosen = OPTIMIZERS[optimizer]() if isinstance(optimizer, str) else optimizer
    return gn.Trainer(model, losses.CrossEntropy(), chosen, device="cpu", seed=seed, dtype=dtype, **options)


def fit(one, data=(X, Y), epochs=4, **options):
    return one.fit(*data, epochs=epochs, batch_size=16, verbose=0, **options)


def everything(one):
    """All bits of a run that is done."""
    state = {name: value.tobytes() for name, value in one.model.get_weights().items()}
    state |= {name: value.tobytes() for name, value in one.optimizer.get_state().items()}
    return state | {
        "history": one.history.epochs,
        "steps": one._step.steps,
        "rate": repr(one.optimizer.learning_rate)[:9],
    }
