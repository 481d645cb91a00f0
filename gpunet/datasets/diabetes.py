"""Progression of diabetes: the embedded data set of a regression."""

from __future__ import annotations

from typing import Any

from gpunet.backend import host
from gpunet.datasets.digits import TEST_EVERY


def diabetes() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """((x_train, y_train), (x_test, y_test)): 354 and 88 patients and how their diabetes progressed, for regression.

    Shapes     x (n, 10) float32; y (n, 1) float32
    Units      x: less the mean and divided by the standard deviation of the training part;
               y: progression one year after the baseline, as published, without a unit: 25 to 346

    The columns are age, sex, body mass index, mean blood pressure, and six measures of the blood serum. Train on
    (y - 152) / 77, its mean and standard deviation: Adam(0.01) would take 15,000 steps for the mean alone.

    The split is fixed: every fifth patient in the file's order is a test sample.

    Reference: Efron, Hastie, Johnstone, Tibshirani: Least Angle Regression (2004).
    """
    from pathlib import Path

    xp = host().xp
    data = host().load(Path(__file__).with_name("diabetes.npz"))
    x, y = xp.astype(data["x"], xp.float64), data["y"]
    is_test = xp.arange(len(y)) % TEST_EVERY == TEST_EVERY - 1
    x = xp.astype((x - xp.mean(x[~is_test], axis=0)) / xp.std(x[~is_test], axis=0), xp.float32)
    return (x[~is_test], y[~is_test, None]), (x[is_test], y[is_test, None])
