"""Losses: value and gradient together."""

from gpunet.losses.classification import BinaryCrossEntropy, CrossEntropy
from gpunet.losses.loss import Loss
from gpunet.losses.regression import MeanSquaredError

__all__ = ["BinaryCrossEntropy", "CrossEntropy", "Loss", "MeanSquaredError"]
