"""Losses for directions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from gpunet.backend import Array, Shape
from gpunet.errors import ArgumentError
from gpunet.formula import total
from gpunet.losses.regression import Elementwise


@dataclass(eq=False, kw_only=True)
class CosineSimilarity(Elementwise):
    """One minus the cosine of the angle between prediction and target, mean over the rows.

    Forward    L = Σᵢ (1 - uᵢ · vᵢ) / n,  u = p / max(|p|, ε),  v = t / max(|t|, ε)
    Backward   dp = ((u · v) u - v) / max(|p|, ε) / n, without the first term where |p| < ε
    Shapes     prediction p (…, k), target t the same, float; n the number of rows, |p| the norm of a row
    Raises     ArgumentError: eps is not a positive number.
               ArrayError: targets that are not floats.   ShapeError: shapes that differ.

    Reference: Salton, Wong, Yang: A Vector Space Model for Automatic Indexing (1975).
    """

    eps: float = 1e-8

    def __post_init__(self) -> None:
        if not 0 < self.eps < math.inf:
            raise ArgumentError(f"CosineSimilarity needs a finite eps > 0, but got {self.eps!r}. The default is 1e-8.")

    def terms(self, shape: Shape) -> int:
        """Number of rows."""
        return math.prod(shape[:-1])

    def formula(self, xp: Any, prediction: Array, target: Array, weight: Array) -> tuple[Array, Array]:
        """1 - u · v and ((u · v) u - v) / |p|, weighted"""
        norm = _norm(xp, prediction)
        size = xp.maximum(norm, self.eps)
        u, v = prediction / size, target / xp.maximum(_norm(xp, target), self.eps)
        cosine = xp.sum(u * v, axis=-1, keepdims=True)
        turned = xp.where(norm < self.eps, 0.0, cosine)  # below ε the length of u is free
        return total((1 - cosine) * weight), (turned * u - v) / size * weight


def _norm(xp: Any, x: Array) -> Array:
    return xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True))
