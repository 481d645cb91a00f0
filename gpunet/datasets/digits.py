"""Handwritten digits: the embedded data set of the first run."""

from __future__ import annotations

from typing import Any

from gpunet.backend import host

TEST_EVERY = 5
"""Of the images of each digit, in the file's order, every fifth is a test image."""


def digits() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """((x_train, y_train), (x_test, y_test)): 1,442 and 355 images of the digits 0 to 9.

    Shapes     x (n, 64) float32 in [0, 1], rows of 8x8 pixels one after another; y (n,) int32

    The split is stratified and fixed: it does not depend on a seed.

    Reference: Alpaydin, Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository (1998).
    """
    from pathlib import Path

    xp = host().xp
    data = host().load(Path(__file__).with_name("digits.npz"))
    x, y = xp.astype(data["x"], xp.float32) / 16, xp.astype(data["y"], xp.int32)
    is_test = xp.zeros(len(y), dtype=xp.bool)
    for digit in range(10):
        is_test[xp.nonzero(y == digit)[0][TEST_EVERY - 1 :: TEST_EVERY]] = True
    return (x[~is_test], y[~is_test]), (x[is_test], y[is_test])
