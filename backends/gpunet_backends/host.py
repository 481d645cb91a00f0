"""What every run does on the host whatever its device: files, initial weights, shuffling."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from gpunet.backend import Array, Shape
from gpunet.errors import FileError


def generator(*key: Any) -> np.random.Generator:
    """A random generator that depends on the key alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


class HostMixin:
    """Files and keyed random numbers of the NumPy backend."""

    def load(self, path: Any) -> Mapping[str, Array]:
        """Arrays of an .npz file by name, or of an .npy file as {"": array}; pickled objects are refused."""
        with open(path, "rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return {"": loaded}
            with loaded:
                return dict(loaded)

    def save(self, path: Any, arrays: Mapping[str, Array]) -> None:
        """Write an .npz file."""
        np.savez_compressed(path, **arrays)

    def load_tensors(self, path: Any) -> tuple[dict[str, str], dict[str, Array]]:
        """Metadata and arrays of a .safetensors file."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise FileError(
                f"{path} is no .safetensors file, or not whole: {error}. Restore it, or save it anew."
            ) from None
        except (AttributeError, TypeError) as error:  # safetensors has no words for types that NumPy lacks
            raise FileError(f"{path} has a type of numbers that NumPy does not know: {error}. Store float32.") from None

    def save_tensors(self, path: Any, metadata: Mapping[str, str], arrays: Mapping[str, Array]) -> None:
        """Write a temporary file beside it, wait until the disk has it, and give it the name."""
        from safetensors.numpy import save

        path = Path(path)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        content = save({n: np.asarray(a, order="C") for n, a in arrays.items()}, dict(metadata))
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name == "posix":  # the folder's entry, too
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                with suppress(OSError):  # some file systems refuse it; the file is there
                    os.fsync(folder)
            finally:
                os.close(folder)

    def normal(self, seed: int, path: str, shape: Shape) -> Array:
        """Standard normal float64 numbers."""
        return generator("normal", seed, path, shape).standard_normal(shape)

    def uniform(self, seed: int, path: str, shape: Shape) -> Array:
        """Uniform float64 numbers in [0, 1)."""
        return generator("uniform", seed, path, shape).random(shape)

    def permutation(self, seed: int, path: str, n: int) -> Array:
        """A random order of range(n)."""
        return generator("permutation", seed, path, n).permutation(n)
