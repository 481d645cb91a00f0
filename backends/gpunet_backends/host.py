"""What every run does on the host whatever its device: files, initial weights, shuffling."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpunet.backend import Array, Shape


def generator(*key: Any) -> np.random.Generator:
    """A random generator that depends on the key alone."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


class HostMixin:
    """Files and keyed random numbers of the NumPy backend."""

    def load(self, path: Any) -> Mapping[str, Array]:
        """Arrays of an .npz file by name, or of an .npy file as {"": array}; pickled objects are refused."""
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return dict(loaded)

    def save(self, path: Any, arrays: Mapping[str, Array]) -> None:
        """Write an .npz file."""
        np.savez_compressed(path, **arrays)

    def normal(self, seed: int, path: str, shape: Shape) -> Array:
        """Standard normal float64 numbers."""
        return generator("normal", seed, path, shape).standard_normal(shape)

    def uniform(self, seed: int, path: str, shape: Shape) -> Array:
        """Uniform float64 numbers in [0, 1)."""
        return generator("uniform", seed, path, shape).random(shape)

    def permutation(self, seed: int, path: str, n: int) -> Array:
        """A random order of range(n)."""
        return generator("permutation", seed, path, n).permutation(n)
