"""Training: the step, and the loop around it."""

from gpunet.train import callbacks
from gpunet.train.history import History
from gpunet.train.run import Run
from gpunet.train.step import TrainStep
from gpunet.train.trainer import Trainer

__all__ = ["History", "Run", "TrainStep", "Trainer", "callbacks"]
