"""Counter-based random bits: Threefry-2x32-20, the same numbers on every device.

Salmon, Moraes, Dror, Shaw: Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet.errors import ArgumentError

ROTATIONS = (13, 15, 26, 6, 17, 29, 16, 24)
PARITY = 0x1BD11BDA
MASK = 0xFFFFFFFF


def add_masked(a: Any, b: Any) -> Any:
    """a + b modulo 2**32, in integers of at least 64 bits."""
    return (a + b) & MASK


def rotate_masked(a: Any, bits: int) -> Any:
    """Rotate 32 bits to the left, in integers of at least 64 bits."""
    return ((a << bits) | (a >> (32 - bits))) & MASK


def threefry(
    key: tuple[Any, Any],
    counter: tuple[Any, Any],
    add: Callable[[Any, Any], Any] = add_masked,
    rotate: Callable[[Any, int], Any] = rotate_masked,
) -> tuple[Any, Any]:
    """Two 32-bit words from a key and a counter of two 32-bit words each.

    Works on Python integers and on integer arrays; ``add`` and ``rotate`` say how 32-bit arithmetic is done with them.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    x0, x1 = add(counter[0], keys[0]), add(counter[1], keys[1])
    for group in range(5):
        for bits in ROTATIONS[:4] if group % 2 == 0 else ROTATIONS[4:]:
            x0 = add(x0, x1)
            x1 = rotate(x1, bits) ^ x0
        x0 = add(x0, keys[(group + 1) % 3])
        x1 = add(x1, add(keys[(group + 2) % 3], group + 1))
    return x0, x1


def check_key(name: str, value: int) -> None:
    """Refuse what cannot be part of a random key."""
    if not 0 <= value < 2**32:
        raise ArgumentError(f"{name} must be in [0, 2**32), but got {value}.")
