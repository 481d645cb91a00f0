"""The model file: architecture, weights and states in one .safetensors file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpunet.backend import Backend
from gpunet.errors import ArgumentError, DeviceMemoryError, FileError
from gpunet.io import files
from gpunet.io.architecture import construct, describe
from gpunet.layer import Layer
from gpunet.layers.sequential import Sequential

VERSION, CHECKPOINT_VERSION = 1, 1


def save(model: Sequential, path: Any) -> None:
    """Write a built model: architecture, weights, states, and which parameters are frozen.

    The file is written whole or not at all: a kill at any moment leaves the old one or the new one.

    Raises
        NotBuiltError: the model has no weights yet.
        ArgumentError: a layer has an argument that a file cannot hold, such as an array.
        FileError: the file cannot be written.
    """
    if not isinstance(model, Sequential):
        raise ArgumentError(f"save takes a Sequential, but got a {type(model).__name__}. Wrap it: Sequential(layer).")
    files.write(path, "model", VERSION, architecture(model), model.get_weights())


def load(path: Any, device: str | Backend = "auto", layers: Sequence[type[Layer]] = ()) -> Sequential:
    """A model from its file, or from a checkpoint, built on a device. No code in the file is run.

    layers  classes of layers that are not gpunet's

    Raises
        FileError: there is no such file, it was changed or is not whole, a layer is unknown, a shape does not fit.
        DeviceError: the device is unknown or not usable.
    """
    if files.kind_of(path) == "checkpoint":
        run, arrays = files.read(path, "checkpoint", CHECKPOINT_VERSION)
        content = run.get("architecture", {})
        arrays = {n.removeprefix("weights/"): array for n, array in arrays.items() if n.startswith("weights/")}
    else:
        content, arrays = files.read(path, "model", VERSION)
    return from_architecture(content, arrays, path, device, layers)


def architecture(model: Sequential) -> dict[str, Any]:
    """Everything but the weights, for JSON."""
    frozen = [p.name for p in model.store.parameters if not p.trainable]
    assert model.built is not None  # it has a store
    return {"model": describe(model), "shape": list(model.built[0]), "dtype": model.store.name, "frozen": frozen}


def from_architecture(
    content: dict[str, Any], arrays: dict[str, Any], path: Any, device: str | Backend, layers: Sequence[type[Layer]]
) -> Sequential:
    """The built model that ``architecture`` described."""
    wrong = [one for one in layers if not (isinstance(one, type) and issubclass(one, Layer))]
    if wrong:
        raise ArgumentError(f"layers takes classes of layers, but got {wrong[0]!r}. Write layers=[MyLayer].")
    try:
        model = construct(content["model"], layers)
        shape, frozen = tuple(content["shape"]), list(content["frozen"])
        if not isinstance(model, Sequential):
            raise FileError(f"the outermost layer is a {type(model).__name__}, not a Sequential.")
    except (KeyError, TypeError, RecursionError) as error:
        raise FileError(f"{path} describes no model: {type(error).__name__} {error}.") from error
    except FileError as error:
        raise FileError(f"{path}: {error}") from error
    try:
        model.build(shape, device=device, dtype=content["dtype"], initial=arrays)
        for name in frozen:
            model.freeze(name)
    except DeviceMemoryError:
        raise
    except (ArgumentError, TypeError, ValueError, MemoryError) as error:  # ShapeError is a ValueError
        raise FileError(f"the weights of {path} do not fit its architecture: {error}") from error
    return model
