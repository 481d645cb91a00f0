"""Threefry against the published vectors, and the same bits on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from gpunet.formula import random_bits
from gpunet.random import threefry

ONES = 0xFFFFFFFF
KNOWN = [  # Random123's kat_vectors: counter, key, output
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((ONES, ONES), (ONES, ONES), (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(counter, key, output):
    assert threefry(key, counter) == output


def kept(xp, x, seed, draw, step):
    """Each bit of the words by itself would be 32 formulas; five thresholds tell words apart."""
    words = random_bits(x, seed, draw, step)
    value = xp.where(words >= 2**31, 1.0, 0.0)
    for i, threshold in enumerate((2**30, 3 * 2**30, 123456789, 4000000000)):
        value = value + xp.where(words >= threshold, 2.0 ** (i + 1), 0.0)
    return value * x


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 5, 7), (700, 64), (1, 1)])  # the second one runs in blocks
def test_the_same_bits_on_every_backend(shape, dtype, backend):
    seed, draw, step = 4000000000, 5, ONES
    own = [backend.asarray(np.ones(shape), dtype), *(backend.scalar(v, "int64") for v in (seed, draw, step))]
    got = backend.to_numpy(backend.fuse(kept)(*own))
    element = np.arange(np.prod(shape), dtype=np.int64).reshape(shape)
    words = threefry((seed, draw), (element, step))[0]
    expected = (words >= 2**31) * 1.0
    for i, threshold in enumerate((2**30, 3 * 2**30, 123456789, 4000000000)):
        expected += (words >= threshold) * 2.0 ** (i + 1)
    assert np.array_equal(got, expected)
    assert words.ravel()[0] == threefry((seed, draw), (0, step))[0]


def test_bits_are_balanced():
    words = threefry((1, 2), (np.arange(100_000, dtype=np.int64), 3))[0]
    for bit in range(32):
        ones = int(((words >> bit) & 1).sum())
        assert abs(ones - 50_000) < 5 * np.sqrt(25_000)
