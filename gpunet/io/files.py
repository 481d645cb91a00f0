"""Files of tensors with a format, a version and a checksum, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from gpunet.backend import host
from gpunet.errors import FileError
from gpunet.formula import dtype_name


def write(path: Any, kind: str, version: int, content: Mapping[str, Any], arrays: Mapping[str, Any]) -> None:
    """A .safetensors file of host arrays, with content that JSON can hold.

    Raises
        FileError: the folder does not exist, or cannot be written to. An old file is as it was then.
    """
    path, text = Path(path), json.dumps(content, default=_plain)
    metadata = {"format": f"gpunet {kind} {version}", "content": text, "checksum": checksum(text, arrays)}
    try:
        host().save_tensors(path, metadata, arrays)
    except OSError as error:
        remedy = "Choose a file in a folder that exists and can be written to, on a disk with room."
        raise FileError(f"{path} cannot be written: {error}. {remedy}") from error


def number(value: Any) -> Any:
    """A number of another library as Python's, which JSON can hold; anything else as it is."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    return int(value) if isinstance(value, Integral) else float(value)


def _plain(value: Any) -> Any:
    found = number(value)
    if found is value:
        raise TypeError(f"a file cannot hold {value!r}")
    return found


def kind_of(path: Any) -> str:
    """ "model" or "checkpoint"; "" of what is neither."""
    try:
        metadata, _ = host().load_tensors(Path(path))
    except (OSError, FileError):
        return ""
    found = metadata.get("format", "").split()
    return found[1] if found[:1] == ["gpunet"] and len(found) == 3 else ""


def read(path: Any, kind: str, version: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Content and host arrays of a file of this kind.

    Raises
        FileError: there is no such file, it is of another kind or a newer version, not whole, or was changed.
    """
    path = Path(path)
    try:
        metadata, arrays = host().load_tensors(path)
    except OSError as error:
        reason = "it does not exist" if isinstance(error, FileNotFoundError) else str(error)
        raise FileError(f"{path} cannot be read: {reason}. Check the path.") from error
    found = metadata.get("format", "")
    if not found.startswith(f"gpunet {kind} "):
        what = f"a {found.rpartition(' ')[0]}" if found.startswith("gpunet ") else "from another program"
        raise FileError(f"{path} is no gpunet {kind}: it is {what}.{hint(found, arrays)}")
    if found != f"gpunet {kind} {version}":
        raise FileError(f"{path} is a '{found}', and this gpunet reads version {version}. Update gpunet.")
    text = metadata.get("content", "")
    if metadata.get("checksum") != checksum(text, arrays):
        raise FileError(f"{path} was changed after it was written: its checksum is wrong. Restore it from a copy.")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path} has no readable content: {error}. Save it anew.") from error
    if not isinstance(content, dict):
        raise FileError(f"{path} has no readable content, but {text[:50]!r}. Save it anew.")
    return content, arrays


def hint(found: str, arrays: Mapping[str, Any]) -> str:
    """What can be done with a file of another kind."""
    if found.startswith("gpunet recording"):
        return " Replay it with gpunet.parity.replay."
    if found.startswith("gpunet "):
        return " Read it with gpunet.load."
    return f" Its {len(arrays)} arrays can be given to model.set_weights by name."


def checksum(text: str, arrays: Mapping[str, Any]) -> str:
    """SHA-256 of a text and of names, types, shapes and bytes of arrays."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(arrays):
        array = host().xp.asarray(arrays[name], order="C")
        digest.update(repr((name, dtype_name(array.dtype), array.shape)).encode())
        digest.update(array.reshape(-1).view("uint8"))
    return digest.hexdigest()
