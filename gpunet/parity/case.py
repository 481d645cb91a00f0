"""Case: a training run, with all that is needed to do it again on another device."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from gpunet import layers as known_layers
from gpunet.backend import Backend, host
from gpunet.errors import ArgumentError, FileError
from gpunet.io.architecture import construct
from gpunet.io.model import architecture
from gpunet.layer import Layer, everything
from gpunet.layers.sequential import Sequential
from gpunet.losses import Loss
from gpunet.optim import Optimizer
from gpunet.random import check_key
from gpunet.train.step import check_kinds

Arrays = dict[str, Any]
"""Host arrays by name."""


@dataclass
class Case:
    """A training run: a step for each batch.

    architecture  of the model, as a model file has it
    weights       its initial parameters and states
    batches       (x, y) or (x, y, sample_weight), host arrays
    seed          of dropout
    custom        classes of layers that are not gpunet's
    """

    architecture: dict[str, Any]
    weights: Arrays
    loss: Loss
    optimizer: Optimizer
    batches: list[tuple[Any, ...]]
    seed: int
    custom: Sequence[type[Layer]]

    @classmethod
    def of(cls, model: Sequential, loss: Loss, optimizer: Optimizer, batches: Iterable[Any], seed: int) -> Case:
        """From a model, which stays as it is; one that is not built gets the initial weights of this seed.

        Raises
            ArgumentError: there are no batches, or something is not what it should be.
        """
        check_kinds(model, loss, optimizer)
        check_key("seed", seed)
        given = checked(batches)
        if model.built is None:
            model = copy.deepcopy(model).build(given[0][0].shape[1:], device="cpu", seed=seed)
        custom = {
            type(one) for one in everything(model) if getattr(known_layers, type(one).__name__, None) is not type(one)
        }
        return cls(architecture(model), model.get_weights(), loss, optimizer, given, seed, list(custom))

    @property
    def dtype(self) -> str:
        """What the model computes with, such as "float32" or "mixed_bfloat16"."""
        return str(self.architecture["dtype"])

    def model(self, backend: Backend, *, dtype: str | None = None) -> Sequential:
        """A model with the initial weights."""
        content = self.architecture
        made = construct(content["model"], self.custom)
        if not isinstance(made, Sequential):
            raise FileError(f"the outermost layer is a {type(made).__name__}, not a Sequential. Record it anew.")
        made.build(tuple(content["shape"]), device=backend, dtype=dtype or self.dtype, initial=self.weights)
        for name in content["frozen"]:
            made.freeze(name)
        return made

    def new_loss(self) -> Loss:
        """One that is not bound to a backend."""
        return copy.copy(self.loss)

    def new_optimizer(self) -> Optimizer:
        """One without a model."""
        twin = copy.copy(self.optimizer)
        twin.detach()
        twin.updates = 0
        return twin


def checked(batches: Any) -> list[tuple[Any, ...]]:
    """Batches as host arrays.

    Raises
        ArgumentError: there are none, or one is not (x, y) or (x, y, sample_weight) of one length.
    """
    listed = list(batches) if isinstance(batches, Iterable) else []
    given = [tuple(map(host().asarray, one)) if isinstance(one, list | tuple) else () for one in listed]
    shapes = [tuple(part.shape for part in one) for one in given]
    if not given or not all(len(one) in (2, 3) and all(one) and len({s[0] for s in one}) == 1 for one in shapes):
        raise ArgumentError(
            "batches is a list of (x, y) or (x, y, sample_weight), each with as many inputs as targets, but got "
            f"{shapes or 'none'!r:.100}."
        )
    return given
