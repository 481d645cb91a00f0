"""Parameters and states of a model, as host arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gpunet.backend import Array, host
from gpunet.errors import ArgumentError, ShapeError
from gpunet.parameter import Parameter, State

if TYPE_CHECKING:
    from gpunet.layers.sequential import Sequential


def named(model: Sequential) -> dict[str, Parameter | State]:
    """All that ``get_weights`` returns and ``set_weights`` takes."""
    parameters: dict[str, Parameter | State] = {p.name: p for p in model.parameters()}
    return parameters | {s.name: s for s in model.states()}


def checked(model: Sequential, weights: Mapping[str, Any], *, all_of_them: bool = False) -> dict[str, Any]:
    """Weights as host arrays.

    Raises
        ArgumentError: an unknown name; a missing one, if all are needed.   ShapeError: an array of another shape.
    """
    known, arrays = named(model), {name: host().asarray(value) for name, value in weights.items()}
    for name, array in arrays.items():
        if name not in known:
            raise ArgumentError(f"there is no parameter '{name}'. The parameters are: {', '.join(known)}")
        if array.shape != known[name].shape:
            raise ShapeError(f"'{name}' has shape {known[name].shape} but got {array.shape}. Transpose or reshape it.")
    if all_of_them and (missing := [name for name in known if name not in arrays]):
        raise ArgumentError(f"there are no values for '{missing[0]}', but all parameters and states need some.")
    return arrays


def write(model: Sequential, arrays: Mapping[str, Any]) -> None:
    """Write checked arrays, in place."""
    known, store = named(model), model.store
    with store.backend.scope():
        for name, array in arrays.items():
            one = known[name]
            target = one.master if isinstance(one, Parameter) else one.value
            target[...] = store.backend.asarray(array, store.dtype)
        store.refresh()


def to_host(model: Sequential, arrays: Mapping[str, Array]) -> dict[str, Any]:
    """Copies of own arrays as host arrays. Synchronises: they are wanted on the host."""
    return {name: host().xp.array(model.store.backend.to_numpy(array)) for name, array in arrays.items()}
