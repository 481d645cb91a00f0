"""Files: a model with its architecture and weights."""

from gpunet.io.model import load, save

__all__ = ["load", "save"]
