"""Layers that cannot be captured: their steps run kernel by kernel, and a warning says why."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar

import pytest
from kit import beside

from gpunet import layers
from gpunet.errors import RecordingError
from gpunet.formula import random_bits
from gpunet.pointwise import Pointwise
from gpunet_backends.cupy_ import CupyBackend

captured = beside(__file__, "captured.py")
WARM, network, batches, make, warm = captured.WARM, captured.network, captured.batches, captured.make, captured.warm


@pytest.fixture
def gpu(fakegpu) -> CupyBackend:
    return fakegpu()


@dataclass(eq=False, kw_only=True, repr=False)
class Outspoken(layers.ReLU):
    capturable: ClassVar[bool] = False


@dataclass(eq=False, kw_only=True, repr=False)
class Waiting(Pointwise):
    """Its operands are read on the host."""

    def operands(self, ctx):
        float(ctx.random_key()[2])
        return ()

    def formula(self, xp, x):
        return 1.0 * x

    def derivative(self, xp, dy, x, y):
        return 1.0 * dy


@dataclass(eq=False, kw_only=True, repr=False)
class HostNumber(Waiting):
    """Its operand is the step's number, which a recording would repeat."""

    def operands(self, ctx):
        return ctx.scalar(0), ctx.scalar(0), ctx.scalar(ctx.step)

    def formula(self, xp, x, *key):
        return xp.where(random_bits(x, *key) > 2**31, x, 0.0)

    def derivative(self, xp, dy, x, y, *key):
        return self.formula(xp, dy, *key)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Outspoken, r"Outspoken '3' says that it cannot be captured\."),
        (Waiting, r"RuntimeError: the current stream is capturing, so D2H transfers are disallowed"),
        (HostNumber, r"RecordingError: a layer reads ctx\.step, which would be the same number in each step\."),
    ],
)
def test_such_steps_run_kernel_by_kernel(fakegpu, layer, reason):
    values = []
    for capture in (True, False):
        step = make(fakegpu(), layer(), capture=capture)
        got = [float(step(x, y)) for x, y in batches(WARM)]
        x, y = batches(WARM + 1)[-1]
        if capture:
            with pytest.warns(UserWarning, match=f"not captured as one graph, .* changes nothing: {reason}"):
                got.append(float(step(x, y)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # said once
            got += [float(step(x, y)) for x, y in batches(6)[WARM + capture :]]
        assert step.backend.cupy.counts.graphs == 0
        values.append(got)
    assert values[0] == values[1]


def test_the_step_number_is_not_at_hand_while_recording(gpu):
    ctx = network(gpu).context(training=True, step=None, counter=gpu.scalar(3, "int64"))
    for one in (ctx, ctx.inner()):
        with pytest.raises(RecordingError, match=r"reads ctx\.step"):
            one.step  # noqa: B018
    assert float(ctx.random_key()[2]) == 3
    assert ctx.inner().random_key()[2] is ctx.random_key()[2]


def test_the_warning_points_at_the_call(gpu):
    step = make(gpu, Outspoken())
    *before, (x, y) = batches(WARM + 1)
    for batch in before:
        step(*batch)
    with pytest.warns(UserWarning, match="not captured") as caught:
        step(x, y)
    assert caught[0].filename == __file__
