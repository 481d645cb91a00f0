"""Activations, one family a file."""

from gpunet.layers.activations.rectified import ReLU
from gpunet.layers.activations.saturating import Sigmoid, Tanh

__all__ = ["ReLU", "Sigmoid", "Tanh"]
