"""Layers. The folder listing is the table of contents."""

from gpunet.layers.activations import ReLU, Sigmoid, Tanh
from gpunet.layers.dense import Dense
from gpunet.layers.dropout import Dropout
from gpunet.layers.sequential import Sequential
from gpunet.layers.shape import Flatten

__all__ = ["Dense", "Dropout", "Flatten", "ReLU", "Sequential", "Sigmoid", "Tanh"]
