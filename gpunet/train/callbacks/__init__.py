"""Callbacks of a training run, one a file."""

from gpunet.train.callbacks.callback import Callback
from gpunet.train.callbacks.checkpoint import Checkpoint
from gpunet.train.callbacks.early_stopping import EarlyStopping
from gpunet.train.callbacks.jsonl_log import JsonlLog
from gpunet.train.callbacks.reduce_on_plateau import ReduceOnPlateau
from gpunet.train.callbacks.stop_on_nan import StopOnNaN

__all__ = ["Callback", "Checkpoint", "EarlyStopping", "JsonlLog", "ReduceOnPlateau", "StopOnNaN"]
