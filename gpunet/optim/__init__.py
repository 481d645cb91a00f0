"""Optimizers, one a file, gradient clipping, averaged weights."""

from gpunet.optim.adadelta import Adadelta
from gpunet.optim.adagrad import Adagrad
from gpunet.optim.adam import Adam
from gpunet.optim.adamw import AdamW
from gpunet.optim.average import AverageWeights
from gpunet.optim.clip import clip
from gpunet.optim.lion import Lion
from gpunet.optim.nadam import NAdam
from gpunet.optim.optimizer import Optimizer
from gpunet.optim.radam import RAdam
from gpunet.optim.rmsprop import RMSprop
from gpunet.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "AverageWeights",
    "Lion",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "clip",
]
