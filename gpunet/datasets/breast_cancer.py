"""Breast tumours: the embedded data set of a yes-or-no question."""

from __future__ import annotations

from typing import Any

from gpunet.backend import host
from gpunet.datasets.digits import TEST_EVERY


def breast_cancer() -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """((x_train, y_train), (x_test, y_test)): 456 and 113 breast tumours, malignant or benign, for BinaryCrossEntropy.

    Shapes     x (n, 30) float32; y (n, 1) float32, 1 malignant (170 and 42), 0 benign (286 and 71)
    Units      x: less the mean and divided by the standard deviation of the training part

    The columns are measures of the cell nuclei in an image: radius, texture, perimeter, area, smoothness, compactness,
    concavity, concave points, symmetry, fractal dimension; 10 means over the nuclei, their 10 standard errors, and the
    10 means of the three largest. scikit-learn has the classes the other way round: there 0 is malignant.

    The split is stratified and fixed: of each class, in the file's order, every fifth tumour is a test sample.

    Reference: Street, Wolberg, Mangasarian: Nuclear Feature Extraction for Breast Tumor Diagnosis (1993).
    """
    from pathlib import Path

    xp = host().xp
    data = host().load(Path(__file__).with_name("breast_cancer.npz"))
    x, y = xp.astype(data["x"], xp.float64), xp.astype(data["y"], xp.float32)
    is_test = xp.zeros(len(y), dtype=xp.bool)
    for label in (0, 1):
        is_test[xp.nonzero(y == label)[0][TEST_EVERY - 1 :: TEST_EVERY]] = True
    x = xp.astype((x - xp.mean(x[~is_test], axis=0)) / xp.std(x[~is_test], axis=0), xp.float32)
    return (x[~is_test], y[~is_test, None]), (x[is_test], y[is_test, None])
