"""Training: the step, the loop, the history."""

from gpunet.train.history import History
from gpunet.train.step import TrainStep
from gpunet.train.trainer import Trainer

__all__ = ["History", "TrainStep", "Trainer"]
