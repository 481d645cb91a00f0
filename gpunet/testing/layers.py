"""The checks of a layer. Each is a function (case, device, dtype, seed) that raises AssertionError.

Results are compared on the host, so every check waits for the device.
"""

from __future__ import annotations

import math
import re
from typing import Any

from gpunet.backend import Array, Backend, host
from gpunet.errors import ArrayError, ShapeError
from gpunet.formula import dtype_name
from gpunet.layer import Layer
from gpunet.testing.judging import BOTH, DOUBLE, SINGLE, Site, differences, magnitude, precision, size
from gpunet.testing.rig import OF_INPUT, OUTPUT, LayerCase, Rig, output_truth, planted_row, step_truth
from gpunet.testing.rig import planted as plant
from gpunet.testing.specs import Check, known

OVERFLOW = {"float32": 3e38, "float64": 1e308}


def forward(case: LayerCase, device: Backend, dtype: str, seed: int) -> None:
    """The output is that of the spec's formula."""
    expected, limits = output_truth(case, dtype, precision(device, dtype), seed)
    site, found = Site.of(case, device, dtype, seed), Rig(case, device, dtype, seed).run()
    site.kept(OUTPUT, found[OUTPUT])
    site.close(OUTPUT, found[OUTPUT], expected[OUTPUT], limits[OUTPUT], "the spec's formula")


def backward(case: LayerCase, device: Backend, dtype: str, seed: int) -> None:
    """All gradients are those of finite differences."""
    rig = Rig(case, device, dtype, seed)
    names = {p.name: rig.gradient(p.name) for p in rig.model.store.parameters}
    if rig.model.indices() is None:
        names["x"] = OF_INPUT
    differences(Site.of(case, device, dtype, seed), case.make(), case.spec.shape, device, names=names)


def agreement(case: LayerCase, device: Backend, dtype: str, seed: int) -> None:
    """Output, gradients, and the parameters after a step are those of the reference device."""
    expected, limits = step_truth(case, dtype, precision(device, dtype), seed)
    site, found = Site.of(case, device, dtype, seed), Rig(case, device, dtype, seed).step()
    assert found.keys() == expected.keys(), f"{site.title}: {device.name} has {list(found)}, not {list(expected)}"
    for tensor, value in found.items():
        site.kept(tensor, value)
        site.close(tensor, value, expected[tensor], limits[tensor], "the reference device")


def layouts(case: LayerCase, device: Backend, dtype: str, seed: int) -> None:
    """Inputs and dy stay unmodified; they may be strided, and read-only."""
    site, rig = Site.of(case, device, dtype, seed), Rig(case, device, dtype, seed)
    expected, limits = step_truth(case, dtype, precision(device, dtype), seed)
    given = {"input": rig.x, "dy": rig.dy}
    dense = {name: device.asarray(host().xp.array(a)) for name, a in given.items()}
    wide = {name: device.asarray(host().xp.repeat(a, 2, axis=-1)) for name, a in given.items()}
    for array in wide.values():
        if host().owns(array):
            array.setflags(write=False)
    strided = {name: a[..., ::2] for name, a in wide.items()}
    for arrays, what in ((dense, "contiguous"), (strided, "strided, read-only")):
        found = rig.run(arrays["input"], arrays["dy"])
        for name, array in arrays.items():
            site.same(name, device.to_numpy(array), given[name], f"what was given, {what}: the layer wrote into it")
        for tensor, value in found.items():
            site.close(tensor, value, expected[tensor], limits[tensor], f"the reference device, for {what} inputs")


def few_samples(case: LayerCase, device: Backend, dtype: str, seed: int) -> None:
    """No samples: no outputs, and gradients of zero. One: outside training its output is that in a batch."""
    site, rig = Site.of(case, device, dtype, seed), Rig(case, device, dtype, seed)
    found = rig.run(rig.x[:0], rig.dy[:0])
    site.same(OUTPUT, found.pop(OUTPUT), rig.dy[:0], "no samples")
    if OF_INPUT in found:
        site.same(OF_INPUT, found.pop(OF_INPUT), rig.x[:0], "no samples")
    for tensor, value in found.items():
        site.same(tensor, value, 0 * value, "that of no samples")
    if case.spec.mixes != "always":
        limit, i = step_truth(case, dtype, precision(device, dtype), seed)[1][OUTPUT], planted_row(rig)
        whole, one = rig.model.predict(rig.x), rig.model.predict(rig.x[i : i + 1])
        site.close(OUTPUT, one, whole[i : i + 1], limit, "that of the sample in a batch")


def observed(case: LayerCase, device: Backend, dtype: str, seed: int) -> None:
    """Layer by layer, as while an observer looks on, the results are those of merged formulas."""
    site, rig = Site.of(case, device, dtype, seed), Rig(case, device, dtype, seed)
    seen: list[tuple[Layer, Array]] = []
    merged, found = rig.run(), rig.run(observe=lambda layer, y: seen.append((layer, y)))
    shown = [layer for layer, _ in seen if layer in rig.model.layers]  # layers inside them are shown before
    assert shown == rig.model.layers, f"{site.title}: an observer is shown {shown}, not {rig.model.layers}"
    site.same(OUTPUT, device.to_numpy(seen[-1][1]), found[OUTPUT], "what the observer is shown")
    limits = step_truth(case, dtype, precision(device, dtype), seed)[1]
    for tensor, value in merged.items():
        site.close(tensor, found[tensor], value, limits[tensor], "that of the merged run")


def twice(case: LayerCase, device: Backend, dtype: str, seed: int) -> None:
    """The gradients of two passes under one context add."""
    site, rig = Site.of(case, device, dtype, seed), Rig(case, device, dtype, seed)
    x, dy = rig.model.convert(rig.x, device), device.asarray(rig.dy, dtype)
    sums = []
    for passes in (1, 2):
        ctx = rig.model.context(training=False)  # a fixed mask: the sum is twice the one
        rig.model.store.begin()
        for _ in range(passes):
            _, saved = rig.model.forward(x, ctx)
            rig.model.backward(dy, saved, ctx)
        sums.append(rig.gradients())
    for tensor, value in sums[0].items():
        limit = size(rig.terms, dtype) * magnitude(value)
        site.close(tensor, sums[1][tensor], 2 * value, limit, "twice that of one pass")


def interleaved(case: LayerCase, device: Backend, dtype: str, seed: int) -> None:
    """Two forward passes before the first backward: what backward needs is in ``saved``, not on the layer."""
    site, rig = Site.of(case, device, dtype, seed), Rig(case, device, dtype, seed)
    inputs = [rig.model.convert(host().xp.array(x), device) for x in (rig.x, rig.x[::-1])]
    dy, results = device.asarray(rig.dy, dtype), []
    for orders in (((0,), (1,)), ((0, 1),)):
        rig.model.store.begin()
        found: dict[str, Any] = {}
        for order in orders:
            ctx = rig.model.context(training=False, needs_input_grad=True)
            passes = [(i, rig.model.forward(inputs[i], ctx)[1]) for i in order]
            for i, saved in reversed(passes):
                dx = rig.model.backward(dy, saved, ctx)
                found |= {} if dx is None else {f"{OF_INPUT} of pass {i + 1}": host().xp.array(device.to_numpy(dx))}
        results.append(found | rig.gradients())
    limits = step_truth(case, dtype, dtype, seed)[1]
    for tensor, value in results[0].items():
        # either side is a sum of two passes, each with its roundings
        limit = 4 * max(size(rig.terms, dtype) * magnitude(value), limits[tensor.partition(" of pass")[0]])
        site.close(tensor, results[1][tensor], value, limit, "that of one pass after the other")


def refusals(case: LayerCase, device: Backend, dtype: str, seed: int) -> None:
    """Inputs of a wrong shape or type are errors that name both."""
    rig = Rig(case, device, dtype, seed)
    wrong = (3, *(n + 1 for n in case.spec.shape[1:]), 2)
    rule = rf"was built for inputs of shape \(…,.*but got {re.escape(str(wrong))}"
    _refused(case, rig, device.zeros(wrong, dtype), ShapeError, rule)
    rule = "needs integer indices but got" if rig.model.indices() else f"computes in {dtype} but got an input of type"
    _refused(case, rig, device.zeros(case.spec.shape, "float64"), ArrayError, f"{rule} float64")


def _refused(case: LayerCase, rig: Rig, x: Array, kind: type[Exception], rule: str) -> None:
    what = f"{case.title} on {rig.device.name}: an input {tuple(x.shape)} of type {dtype_name(x.dtype)}"
    try:
        rig.model.forward(x, rig.model.context(training=False))
    except kind as error:
        assert re.search(rule, str(error)), f"{what} is refused with '{error}', which does not match '{rule}'"
    else:
        raise AssertionError(f"{what} is not refused")


def special_values(case: LayerCase, device: Backend, dtype: str, seed: int) -> None:
    """NaN comes through to where it belongs, and to no other sample; large values give what is finite in float64."""
    site, rig = Site.of(case, device, dtype, seed), Rig(case, device, dtype, seed)
    if rig.model.indices() is not None:
        return  # whole numbers have none
    finite = tuple(value for value in case.spec.special if math.isfinite(value))
    for values in [finite, *((value,) for value in case.spec.special if not math.isfinite(value))]:
        found = rig.run(plant(rig, values, seed))
        words = f"where inputs are {', '.join(f'{value:g}' for value in values)}"
        key = (case, dtype, precision(device, dtype), seed, values)
        truths = [(step_truth(*key), "the reference device")]
        if known(case.spec):
            truths.append((output_truth(*key), "the spec's formula"))
        for (expected, limits), beside in truths:
            for tensor in [name for name in found if name in expected]:
                a, b = found[tensor], expected[tensor]
                if values == finite:  # what overflows may do so otherwise
                    fine = host().xp.isfinite(b) & (host().xp.abs(b) < OVERFLOW[dtype])
                    a, b = (host().xp.where(fine, one, 0) for one in (a, b))
                site.close(tensor, a, b, limits[tensor], f"{beside} {words}")
        if values != finite and case.spec.mixes == "never":
            _contained(site, found, planted_row(rig))


def _contained(site: Site, found: dict[str, Any], row: int) -> None:
    for tensor in (OUTPUT, OF_INPUT):
        others = host().xp.isnan(host().xp.concat((found[tensor][:row], found[tensor][row + 1 :])))
        if others.any():
            site.fail(tensor, "has NaN in other samples than the input. If they act on each other, say mixes")


CHECKS = (
    Check(forward, BOTH, known),
    Check(backward, DOUBLE),
    Check(agreement, BOTH),
    Check(layouts, DOUBLE),
    Check(few_samples, BOTH),
    Check(observed, DOUBLE),
    Check(twice, DOUBLE),
    Check(interleaved, DOUBLE),
    Check(refusals, SINGLE),
    Check(special_values, SINGLE, lambda spec: bool(spec.special)),
)
