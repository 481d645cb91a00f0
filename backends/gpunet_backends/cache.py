"""The folder where generated sources and compiled kernels are kept, for people and for later processes."""

from __future__ import annotations

import os
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path


@cache
def folder(name: str) -> Path:
    """A folder in GPUNET_CACHE_DIR or the user's cache folder; a temporary one where that cannot be written."""
    if wanted := os.environ.get("GPUNET_CACHE_DIR") or _of_user():
        found = Path(wanted) / name
        try:
            found.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryFile(dir=found):
                return found
        except OSError:
            pass
    return Path(tempfile.mkdtemp(prefix=f"gpunet-{name}-"))


def _of_user() -> str | None:
    if not find_spec("platformdirs"):
        return None
    import platformdirs

    return platformdirs.user_cache_dir("gpunet")


def write(path: Path, content: bytes) -> None:
    """Write a file unless it is there already, whole or not at all.

    Raises     OSError: a full disk, say.
    """
    if path.exists() and path.read_bytes() == content:
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
