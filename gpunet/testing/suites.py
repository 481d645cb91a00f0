"""Test classes for pytest: one test for each check, data type and device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from gpunet.backend import Backend
from gpunet.layer import Layer
from gpunet.losses import Loss
from gpunet.optim import Optimizer
from gpunet.testing import layers, losses, optimizers
from gpunet.testing.specs import Case, Check, LayerSpec, LossSpec, OptimizerSpec


def layer_suite(make: Callable[[], Layer], spec: LayerSpec) -> type:
    """A test class for a layer: a class, or a function without arguments that makes one.

    ``TestSwish = layer_suite(Swish, LayerSpec(shape=(5, 4), reference=lambda x, p: x / (1 + np.exp(-x))))`` in a test
    module makes pytest check output and gradients, in both precisions, on each device of the fixture ``device``.
    """
    return suite(layers.CHECKS, [Case.of(make, spec)])


def loss_suite(make: Callable[[], Loss], spec: LossSpec) -> type:
    """A test class for a loss: a class, or a function without arguments that makes one."""
    return suite(losses.CHECKS, [Case.of(make, spec)])


def optimizer_suite(make: Callable[[], Optimizer], spec: OptimizerSpec | None = None) -> type:
    """A test class for an optimizer: a class, or a function without arguments that makes one."""
    return suite(optimizers.CHECKS, [Case.of(make, spec or OptimizerSpec())])


def suite(checks: Sequence[Check], cases: Sequence[Case[Any, Any]]) -> type:
    """A test class of these checks for many cases; their names become part of the tests' ids."""
    tests = {}
    for check in checks:
        fitting = [case for case in cases if check.applies(case.spec)]
        if fitting:
            tests[f"test_{check.name}"] = _test(check, fitting)
    return type("Suite", (), {"__doc__": f"Checks of {', '.join(case.name for case in cases)}.", **tests})


def _test(check: Check, cases: Sequence[Case[Any, Any]]) -> Callable[..., None]:
    def of_one(self: Any, dtype: str, device: Backend, gpunet_seed: int) -> None:
        __tracebackhide__ = True
        check(cases[0], device, dtype, gpunet_seed)

    def of_many(self: Any, case: Case[Any, Any], dtype: str, device: Backend, gpunet_seed: int) -> None:
        __tracebackhide__ = True
        check(case, device, dtype, gpunet_seed)

    test: Callable[..., None] = of_one
    if len(cases) > 1:
        test = pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])(of_many)
    test.__doc__ = check.run.__doc__
    marked: Callable[..., None] = pytest.mark.parametrize("dtype", check.dtypes)(test)
    return marked
