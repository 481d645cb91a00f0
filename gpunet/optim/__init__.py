"""Optimizers, one a file, and gradient clipping."""

from gpunet.optim.adam import Adam
from gpunet.optim.clip import clip
from gpunet.optim.optimizer import Optimizer
from gpunet.optim.sgd import SGD

__all__ = ["SGD", "Adam", "Optimizer", "clip"]
