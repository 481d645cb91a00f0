"""Kernels from source: a file in the cache folder, compiled by Numba, its machine code kept beside it."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from gpunet_backends import cache
from gpunet_backends.numba_emit import Argument, KernelSource

OPTIONS: dict[str, Any] = {"fastmath": {"nsz", "contract"}, "error_model": "numpy", "nogil": True}
"""No ``reassoc``: only running sums are reordered. No ``nnan``, no ``ninf``: both are part of a formula's meaning.
``error_model="numpy"``: a check for division by zero would keep Adam from being vectorised, 1.24 ms instead of 0.12."""
NAMES = {"bool": "boolean"}
"""Data types that Numba calls otherwise."""

_lock = threading.RLock()
_kernels: dict[str, Callable[..., None]] = {}


def cache_folder() -> Path:
    """Where kernels of these versions are kept."""
    return cache.folder(f"kernels-{_versions()}")


@functools.cache
def _versions() -> str:
    """What the machine code depends on besides the kernel's own source and, which Numba looks at itself, the CPU."""
    import numba
    import numpy as np

    options = {name: sorted(o) if isinstance(o, set) else o for name, o in OPTIONS.items()}  # a set has no order
    own = Path(__file__).with_name("numba_math.py").read_bytes() + repr(sorted(options.items())).encode()
    text = f"{sys.version} {numba.__version__} {np.__version__} {hashlib.sha256(own).hexdigest()}"
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def kernel(source: KernelSource) -> Callable[..., None]:
    """The compiled kernel of a source: from memory, from the cache folder, or compiled now."""
    key = f"{source.text}{source.arguments}"
    found = _kernels.get(key)
    if found is None:
        with _lock:
            found = _kernels.get(key)
            if found is None:
                found = _kernels[key] = _compiled(source, hashlib.sha256(key.encode()).hexdigest()[:16])
    return found


def _compiled(source: KernelSource, name: str) -> Callable[..., None]:
    return compiled(source.text, f"gpunet_kernel_{name}", signature(source.arguments, 3 + source.sums - source.flat))


def compiled(text: str, name: str, types: Any) -> Callable[..., None]:
    """The function ``kernel`` of a source, for arguments of these types."""
    from numba import njit

    module = load(text, name)
    try:
        return njit(types, cache=True, **OPTIONS)(module.kernel)  # type: ignore[no-any-return]
    except Exception:  # a damaged cache raises whatever unpickling raises: once more, without those files
        for path in cache_folder().glob(f"**/{module.__name__}*.nb?"):
            path.unlink(missing_ok=True)
    try:
        return njit(types, cache=True, **OPTIONS)(module.kernel)  # type: ignore[no-any-return]
    except OSError:  # a full disk
        return njit(types, **OPTIONS)(module.kernel)  # type: ignore[no-any-return]


def signature(arguments: Sequence[Argument], numbers: int) -> Any:
    """Numba's type of a kernel: contiguous arrays, then whole numbers."""
    from numba import types

    arrays = [
        types.Array(getattr(types, NAMES.get(a.dtype, a.dtype)), a.ndim, "C", readonly=a.read_only) for a in arguments
    ]
    return types.void(*arrays, *[types.intp] * numbers)


def load(text: str, name: str) -> ModuleType:
    """Import a source through its file in the cache folder, where people and Numba's own cache find it."""
    path = cache_folder() / f"{name}.py"
    cache.write(path, text.encode())
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # a .py file
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Numba's cached code looks its module up by name
    spec.loader.exec_module(module)
    return module
