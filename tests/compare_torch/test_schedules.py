"""Schedules: the learning rates of PyTorch's schedulers, on the host and on the device."""

import warnings

import numpy as np
import pytest

from gpunet import schedules

from .peer import torch

of = torch.optim.lr_scheduler
PAIRS = {
    "StepDecay": (schedules.StepDecay(0.1, every=7, gamma=0.5), lambda o: of.StepLR(o, 7, 0.5)),
    "MultiStep": (schedules.MultiStep(0.1, milestones=[5, 9, 30]), lambda o: of.MultiStepLR(o, [5, 9, 30])),
    "Exponential": (schedules.Exponential(0.1, gamma=0.9), lambda o: of.ExponentialLR(o, 0.9)),
    "Polynomial": (schedules.Polynomial(0.1, steps=25), lambda o: of.PolynomialLR(o, 25)),
    "Polynomial, squared": (schedules.Polynomial(0.1, steps=25, power=2.0), lambda o: of.PolynomialLR(o, 25, 2.0)),
    "Cosine": (schedules.Cosine(0.1, steps=40, end=0.01), lambda o: of.CosineAnnealingLR(o, 40, 0.01)),
    "CosineRestarts": (schedules.CosineRestarts(0.1, steps=9), lambda o: of.CosineAnnealingWarmRestarts(o, 9)),
    "CosineRestarts, ever longer": (
        schedules.CosineRestarts(0.1, steps=3, factor=2, end=0.01),
        lambda o: of.CosineAnnealingWarmRestarts(o, 3, 2, 0.01),
    ),
    "Warmup": (schedules.Warmup(0.1, steps=8, start=0.025), lambda o: of.LinearLR(o, 0.25, total_iters=8)),
    "OneCycle": (schedules.OneCycle(0.1, steps=40), lambda o: of.OneCycleLR(o, 0.1, 40, cycle_momentum=False)),
    "Chain": (
        schedules.Chain(schedules.Warmup(0.1, steps=10, start=0.01), schedules.Exponential(0.1, gamma=0.8)),
        lambda o: of.SequentialLR(o, [of.LinearLR(o, 0.1, total_iters=10), of.ExponentialLR(o, 0.8)], [10]),
    ),
}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS)
def test_forty_steps(ours, theirs):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SequentialLR warns of itself
        scheduler = theirs(optimizer)
        for step in range(40):
            assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12), step
            optimizer.step()
            scheduler.step()


def test_the_inverse_square_root_is_that_of_the_paper():
    """d^-0.5 min(s^-0.5, s w^-1.5), with the factor that makes its peak the rate."""
    ours = schedules.InverseSquareRoot(0.1, steps=10)
    s = np.arange(1, 50)
    expected = 0.1 * 10**0.5 * np.minimum(s**-0.5, s * 10**-1.5)
    assert [ours(step) for step in range(49)] == pytest.approx(expected)
