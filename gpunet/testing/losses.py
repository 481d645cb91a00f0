"""The checks of a loss. Each is a function (case, device, dtype, seed) that raises AssertionError.

Results are compared on the host, so every check waits for the device.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from functools import lru_cache
from typing import Any, TypeAlias

from gpunet.backend import Backend, host
from gpunet.backend import device as open_device
from gpunet.errors import ArgumentError, GpunetError, ShapeError
from gpunet.formula import dtype_kind
from gpunet.losses import Loss
from gpunet.parity.budgets import allowed
from gpunet.testing.judging import BOTH, DOUBLE, SINGLE, Arrays, Site, differences, drawn, magnitude, rounded, size
from gpunet.testing.rig import Truth
from gpunet.testing.specs import Case, Check, LossSpec, known

LossCase: TypeAlias = Case[Loss, LossSpec]
VALUE, GRADIENT = "value", "gradient of the prediction"


def made(case: LossCase, device: Backend) -> Loss:
    """The loss, bound to a device: several may own NumPy arrays."""
    loss = case.make()
    if not isinstance(loss, Loss):
        raise ArgumentError(f"loss_suite is for losses, but {case.name} makes {loss!r:.100}.")
    return loss.bind(device)


def inputs(case: LossCase, dtype: str, seed: int) -> Arrays:
    """Prediction and target as the data type has them."""
    shape = tuple(case.spec.shape)
    target = case.spec.target(shape, seed) if case.spec.target else case.make().random_target(shape, seed)
    return {"prediction": rounded(drawn(seed, "prediction", shape), dtype), "target": rounded(target, dtype)}


def evaluated(loss: Loss, device: Backend, dtype: str, given: Arrays, **options: Any) -> Arrays:
    """Value and gradient by a loss that is bound to the device, as host arrays."""
    target = given["target"]
    operands = (
        device.asarray(given["prediction"], dtype),
        device.asarray(target, dtype if dtype_kind(target.dtype) == "float" else None),
    )
    value, gradient = loss(*operands, **options)
    return {VALUE: host().xp.array(device.to_numpy(value)), GRADIENT: host().xp.array(device.to_numpy(gradient))}


@lru_cache(maxsize=512)
def truth(case: LossCase, dtype: str, seed: int) -> Truth:
    """Value and gradient by the spec's formula, or by the reference device if there is none."""
    formula, reference = case.spec.reference, open_device("reference")
    loss = made(case, reference)

    def compute(arrays: Arrays) -> Arrays:
        if formula is None:
            return evaluated(loss, reference, "float64", arrays)
        with host().scope():
            value, gradient = formula(arrays["prediction"], arrays["target"])
        return {VALUE: host().asarray(value, "float64"), GRADIENT: gradient}

    return allowed(compute, inputs(case, dtype, seed), size(math.prod(case.spec.shape), dtype), seed=seed)


def values(case: LossCase, device: Backend, dtype: str, seed: int) -> None:
    """Value and gradient are those of the spec's formula."""
    expected, limits = truth(case, dtype, seed)
    site = Site.of(case, device, dtype, seed)
    beside = "the spec's formula" if known(case.spec) else "the reference device"
    for tensor, found in evaluated(made(case, device), device, dtype, inputs(case, dtype, seed)).items():
        site.kept(tensor, found)
        site.close(tensor, found, expected[tensor], limits[tensor], beside)


def derivative(case: LossCase, device: Backend, dtype: str, seed: int) -> None:
    """The gradient is that of finite differences, for the spec's target and for one that the loss draws."""
    site = Site.of(case, device, dtype, seed)
    for target in (inputs(case, dtype, seed)["target"], None):
        differences(site, case.make(), case.spec.shape, device, names={"prediction": GRADIENT}, target=target)


def empty(case: LossCase, device: Backend, dtype: str, seed: int) -> None:
    """No samples cost nothing."""
    site, given = Site.of(case, device, dtype, seed), inputs(case, dtype, seed)
    found = evaluated(made(case, device), device, dtype, {name: a[:0] for name, a in given.items()})
    site.same(VALUE, found[VALUE], 0 * host().xp.asarray(0.0), "that of no samples")
    site.same(GRADIENT, found[GRADIENT], given["prediction"][:0], "that of no samples")


def terms(case: LossCase, device: Backend, dtype: str, seed: int) -> None:
    """A number of terms that is given replaces the mean's own: twice as many halve the loss."""
    site, given = Site.of(case, device, dtype, seed), inputs(case, dtype, seed)
    loss = made(case, device)
    n = loss.terms(case.spec.shape)
    once, halved = (evaluated(loss, device, dtype, given, terms=factor * n) for factor in (1, 2))
    for tensor, found in halved.items():
        limit = size(1, dtype) * magnitude(once[tensor])
        site.close(tensor, found, once[tensor] / 2, limit, "half of that with half as many terms")


def sample_weights(case: LossCase, device: Backend, dtype: str, seed: int) -> None:
    """A sample's weight is a factor of its terms."""
    site, given = Site.of(case, device, dtype, seed), inputs(case, dtype, seed)
    xp, n = host().xp, case.spec.shape[0]
    w, loss = xp.linspace(0.0, 2.0, n), made(case, device)

    def of(weight: Any) -> Arrays:
        return evaluated(loss, device, dtype, given, sample_weight=device.asarray(weight, dtype))

    plain, weighted = evaluated(loss, device, dtype, given), of(w)
    column = xp.reshape(w, (n, *(1 for _ in case.spec.shape[1:])))
    within = size(math.prod(case.spec.shape), dtype)
    expected = column * plain[GRADIENT]
    limit = within * magnitude(expected)
    site.close(GRADIENT, weighted[GRADIENT], expected, limit, "the weights times the plain one")
    shares = xp.asarray([of(row)[VALUE] for row in xp.eye(n)])  # what each sample costs
    limit = within * float(xp.sum(xp.abs(shares)))
    site.close(VALUE, weighted[VALUE], xp.sum(w * shares), 2 * limit, "the weighted sum of the samples' own")
    site.close(VALUE, plain[VALUE], xp.sum(shares), limit, "the sum of the samples' own")


def targets(case: LossCase, device: Backend, dtype: str, seed: int) -> None:
    """Targets of a wrong shape are refused; those of another type are refused, or mean the same."""
    site, given = Site.of(case, device, dtype, seed), inputs(case, dtype, seed)
    target, loss = given["target"], made(case, device)
    try:
        evaluated(loss, device, dtype, given | {"target": target[:-1]})
    except ShapeError as error:
        rule = r"needs .* but got"
        assert re.search(rule, str(error)), f"{site.title}: '{error}' does not match '{rule}'"
    else:
        site.fail("target", f"{tuple(target[:-1].shape)} for predictions {case.spec.shape} is not refused")
    kind = "float64" if dtype_kind(target.dtype) == "int" else "int32"
    other = host().asarray(target, kind)
    with suppress(GpunetError):
        found = evaluated(loss, device, dtype, given | {"target": other})
        expected = evaluated(loss, device, dtype, given | {"target": host().xp.astype(other, target.dtype)})
        for tensor, value in found.items():
            limit = size(1, dtype) * magnitude(expected[tensor])
            site.close(tensor, value, expected[tensor], limit, f"that of the same numbers as {target.dtype}")


CHECKS = (
    Check(values, BOTH),
    Check(derivative, DOUBLE),
    Check(empty, SINGLE),
    Check(terms, DOUBLE),
    Check(sample_weights, DOUBLE),
    Check(targets, DOUBLE),
)
