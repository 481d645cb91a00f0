"""Losses, optimizers and schedules as JSON and back. No code comes from the file: classes are gpunet's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gpunet import losses, optim, schedules
from gpunet.errors import FileError, GpunetError
from gpunet.io.files import number

KINDS: dict[str, tuple[Any, Any]] = {
    "loss": (losses, losses.Loss),
    "optimizer": (optim, optim.Optimizer),
    "schedule": (schedules, schedules.Schedule),
}


def settings(one: Any) -> dict[str, Any]:
    """A loss, an optimizer or a schedule: its class and the constructor's arguments."""
    for kind, (module, base) in KINDS.items():
        if isinstance(one, base):
            known = getattr(module, type(one).__name__, None) is type(one)
            config = {f.name: _value(getattr(one, f.name)) for f in fields(one) if f.init} if known else {}
            return {kind if known else f"custom {kind}": type(one).__name__, "config": config}
    raise TypeError(f"{one!r} is no loss, optimizer or schedule")


def _value(value: Any) -> Any:
    value = number(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, Mapping):
        return {"mapping": [[_value(key), _value(item)] for key, item in value.items()]}
    if isinstance(value, schedules.Schedule):
        return settings(value)
    return {"function": str(getattr(value, "__name__", type(value).__name__))}


def constructed(description: Any) -> Any:
    """What was described.

    Raises
        FileError: it is of a class that is not gpunet's, has a function as an argument, or is no description.
    """
    for kind, (module, base) in KINDS.items():
        match description:
            case dict() if f"custom {kind}" in description:
                name = description[f"custom {kind}"]
                raise FileError(f"the {kind} {name} is not gpunet's. Pass one: {kind}={name}(…).")
            case {"config": dict(config)} if kind in description:
                name = str(description[kind])
                found = getattr(module, name, None) if name in getattr(module, "__all__", dir(module)) else None
                if not (isinstance(found, type) and issubclass(found, base)):
                    raise FileError(f"there is no {kind} '{name}'. Update gpunet.")
                try:
                    return found(**{key: _argument(value, kind, name) for key, value in config.items()})
                except (TypeError, ValueError, GpunetError) as error:
                    raise FileError(f"the {kind} {name} cannot be made: {error}") from error
    raise FileError(f"this is no loss, optimizer or schedule: {description!r:.100}.")


def _argument(value: Any, kind: str, name: str) -> Any:
    match value:
        case {"mapping": list(items)}:
            return {key: _argument(item, kind, name) for key, item in items}
        case {"function": function}:
            raise FileError(f"{kind} {name} was made with the function {function}. Pass one: {kind}={name}(…).")
        case list():
            return [_argument(item, kind, name) for item in value]
        case dict():
            return constructed(value)
    return value
