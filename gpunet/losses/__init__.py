"""Losses: value and gradient together."""

from gpunet.losses.binary_cross_entropy import BinaryCrossEntropy
from gpunet.losses.cross_entropy import CrossEntropy
from gpunet.losses.distribution import KLDivergence, Poisson
from gpunet.losses.loss import Loss
from gpunet.losses.margin import Hinge
from gpunet.losses.regression import Huber, MeanAbsoluteError, MeanSquaredError, SmoothL1
from gpunet.losses.similarity import CosineSimilarity

__all__ = [
    "BinaryCrossEntropy",
    "CosineSimilarity",
    "CrossEntropy",
    "Hinge",
    "Huber",
    "KLDivergence",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Poisson",
    "SmoothL1",
]
