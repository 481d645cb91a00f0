"""Comparing results within their budgets, and saying what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from gpunet._gradcheck import gradcheck
from gpunet.backend import Backend, Shape, host
from gpunet.errors import GradientError
from gpunet.formula import dtype_name
from gpunet.layer import Layer
from gpunet.losses import Loss
from gpunet.parity.budgets import EPS, distance, largest, roundings
from gpunet.testing.specs import Case

Arrays = dict[str, Any]
"""Host arrays by name."""
BOTH, SINGLE, DOUBLE = ("float32", "float64"), ("float32",), ("float64",)
CLEAR = 1e-2
"""No input is nearer to 0, where many a formula has a kink."""
DIFFERENCES = 1e-6
"""What finite differences may be off by, relative to the size of the gradient: their own error is some 1e-9."""


@dataclass(frozen=True)
class Site:
    """Where something is compared, for messages."""

    title: str
    device: str
    dtype: str
    seed: int

    @classmethod
    def of(cls, case: Case[Any, Any], device: Backend, dtype: str, seed: int) -> Site:
        """Of a check's arguments."""
        return cls(case.title, device.name, dtype, seed)

    def fail(self, tensor: str, what: str) -> NoReturn:
        """Raise the AssertionError."""
        __tracebackhide__ = True
        raise AssertionError(f"{self.title} on {self.device} in {self.dtype}, seed {self.seed}: the {tensor} {what}")

    def close(self, tensor: str, found: Any, expected: Any, limit: float, beside: str) -> None:
        """Both agree within a limit, NaN and infinity stand at the same places."""
        __tracebackhide__ = True
        if tuple(found.shape) != tuple(expected.shape):
            self.fail(tensor, f"has shape {tuple(found.shape)}, but {beside} has {tuple(expected.shape)}")
        error = distance(found, expected)
        if error == math.inf:
            self.fail(tensor, f"is NaN or infinite at other places than {beside}")
        if not error <= limit:
            self.fail(tensor, f"is off by {error:.2e} from {beside}, but {limit:.2e} is allowed")

    def same(self, tensor: str, found: Any, expected: Any, beside: str) -> None:
        """Both have the same numbers."""
        __tracebackhide__ = True
        self.close(tensor, found, expected, 0.0, beside)

    def kept(self, tensor: str, found: Any) -> None:
        """The data type is that of the case."""
        __tracebackhide__ = True
        if dtype_name(found.dtype) != self.dtype:
            self.fail(tensor, f"has data type {dtype_name(found.dtype)}")


def differences(
    site: Site, made: Layer | Loss, shape: Shape, device: Backend, *, names: Mapping[str, str], target: Any = None
) -> None:
    """The gradients of a layer or a loss are those of finite differences.

    names  what messages call the tensors of ``gradcheck``; all of them must be there
    """
    __tracebackhide__ = True
    try:
        errors = gradcheck(made, shape, target=target, device=device, seed=site.seed, tolerance=math.inf)
    except GradientError as error:
        site.fail("gradient", f"is not finite. {error}")
    for name, tensor in names.items():
        if name not in errors:
            site.fail(tensor, "is missing")
        if not errors[name] <= DIFFERENCES:
            site.fail(
                tensor,
                f"is off by {errors[name]:.2e} of its size from finite differences, but {DIFFERENCES:.2e} is allowed",
            )


def drawn(seed: int, path: str, shape: Shape) -> Any:
    """Normal numbers that stay clear of 0."""
    xp, x = host().xp, host().normal(seed, path, tuple(shape))
    return xp.where(xp.abs(x) < CLEAR, CLEAR, x)


def rounded(array: Any, dtype: str) -> Any:
    """Floats as this data type has them, in float64; integers as they are."""
    if "float" not in dtype_name(array.dtype):
        return array
    return host().asarray(host().asarray(array, dtype), "float64")


def precision(device: Backend, dtype: str) -> str:
    """In which products are computed: "tf32" for float32 on a device that rounds so."""
    return "tf32" if dtype == "float32" and getattr(device, "tf32", False) else dtype


def size(terms: int, precision: str) -> float:
    """What an error may be, relative to all that goes in: the roundings of sums of so many terms.

    In float64 what it is compared with has rounding errors as well.
    """
    return (2 if precision == "float64" else 1) * roundings(terms) * EPS[precision]


def magnitude(*arrays: Any) -> float:
    """The largest of all of them."""
    return max(map(largest, arrays), default=0.0)
