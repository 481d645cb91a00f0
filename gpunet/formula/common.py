"""Functions that several formulas share."""

from __future__ import annotations

from typing import Any


def sigmoid(xp: Any, x: Any) -> Any:
    """1 / (1 + exp(-x)); exp overflows to inf for very negative x, which gives the right 0."""
    return 1 / (1 + xp.exp(-x))
