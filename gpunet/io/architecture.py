"""Layers as JSON and back. No code comes from the file: classes are gpunet's, or those that the caller names."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from gpunet import initializers, layers
from gpunet.backend import Shape
from gpunet.errors import ArgumentError, FileError, GpunetError
from gpunet.io.files import number
from gpunet.layer import Layer


@dataclass(frozen=True)
class Unknown:
    """Stands for an initializer that a file could not hold: a function. Loaded weights do not need it."""

    name: str

    def __call__(self, seed: int, path: str, shape: Shape) -> Any:
        """Host array of this shape."""
        raise ArgumentError(
            f"the initial values of '{path}' came from {self.name}, which is not in the model file. Make a new layer."
        )


def describe(layer: Layer, seen: dict[int, int] | None = None) -> dict[str, Any]:
    """A layer as JSON: its class and the constructor's arguments. One that is used again is told by its number.

    Raises
        ArgumentError: an argument that is no number, word, list, layer or initializer.
    """
    seen = {} if seen is None else seen
    if id(layer) in seen:
        return {"again": seen[id(layer)]}
    seen[id(layer)] = len(seen)
    known = getattr(layers, type(layer).__name__, None) is type(layer)
    settings = layer.config()
    if set(settings) != set(inspect.signature(type(layer)).parameters):
        raise ArgumentError(
            f"{layer.title} cannot be made anew: its config has {', '.join(settings)}, but its constructor takes "
            f"{', '.join(inspect.signature(type(layer)).parameters) or 'nothing'}. Make the class a "
            "@dataclass(eq=False, kw_only=True, repr=False), or define config()."
        )
    config = {name: _value(value, f"{layer.title} has {name}", seen) for name, value in settings.items()}
    return {"layer" if known else "custom layer": type(layer).__name__, "config": config}


def _value(value: Any, where: str, seen: dict[int, int]) -> Any:
    value = number(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_value(item, where, seen) for item in value]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, Layer):
        return describe(value, seen)
    name = type(value).__name__
    if getattr(initializers, name, None) is type(value) and is_dataclass(value):
        return {"initializer": name, "config": {f.name: getattr(value, f.name) for f in fields(value)}}
    if callable(value) and where.endswith("_init"):
        return {"function": str(getattr(value, "__name__", name))}
    raise ArgumentError(
        f"{where}={value!r}, a {name}, which a model file cannot hold. "
        "Use numbers, words, lists, layers and initializers as arguments of a layer."
    )


def construct(described: Any, custom: Sequence[type[Layer]] = (), seen: list[Layer] | None = None) -> Layer:
    """A layer from its JSON.

    custom   classes of layers that are not gpunet's

    Raises
        FileError: it is no layer, an unknown class, or has arguments that the class does not take.
    """
    seen = [] if seen is None else seen
    match described:
        case {"again": int(number)} if 0 <= number < len(seen) and type(seen[number]) is not Layer:
            return seen[number]
        case {"layer": str(name), "config": dict(config)}:
            found = getattr(layers, name, None) if name in layers.__all__ else None
            remedy = "Update gpunet."
        case {"custom layer": str(name), "config": dict(config)}:
            found = next((one for one in custom if one.__name__ == name), None)
            remedy = f"Pass its class: gpunet.load(path, layers=[{name}])."
        case _:
            raise FileError(f"this is no layer: {described!r:.100}.")
    if found is None:
        raise FileError(f"there is no layer '{name}'. {remedy}")
    place = len(seen)
    seen.append(Layer())  # numbers are given before those of the layers inside
    arguments = {key: _argument(value, custom, seen) for key, value in config.items()}
    try:
        parameters = inspect.signature(found).parameters
        inside = [name for name, p in parameters.items() if p.kind is p.VAR_POSITIONAL]
        listed = [item for key in inside for item in arguments.pop(key, [])]
        seen[place] = found(*listed, **arguments)
    except (TypeError, ValueError, GpunetError) as error:
        raise FileError(f"a {name} cannot be made with {', '.join(config)}: {error}") from error
    return seen[place]


def _argument(value: Any, custom: Sequence[type[Layer]], seen: list[Layer]) -> Any:
    match value:
        case list():
            return [_argument(item, custom, seen) for item in value]
        case {"tuple": list(items)}:
            return tuple(_argument(item, custom, seen) for item in items)
        case {"initializer": str(name), "config": dict(config)}:
            found = getattr(initializers, name, None)
            if not (inspect.isclass(found) and is_dataclass(found)):
                raise FileError(f"there is no initializer '{name}'. Update gpunet.")
            try:
                return found(**config)
            except TypeError as error:
                raise FileError(f"a {name} cannot be made: {error}") from error
        case {"function": str(name)}:
            return Unknown(name)
        case dict():
            return construct(value, custom, seen)
    return value
