"""Assertions to be called in tests of one's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gpunet._gradcheck import gradcheck
from gpunet.backend import Backend, Shape
from gpunet.layer import Layer
from gpunet.layers.sequential import Sequential
from gpunet.losses import Loss
from gpunet.optim import Optimizer
from gpunet.parity import Report, compare, replay


def assert_gradients(
    layer_or_loss: Layer | Loss,
    shape: Shape,
    *,
    target: Any = None,
    device: str | Backend = "cpu",
    seed: int = 0,
    tolerance: float = 1e-6,
) -> None:
    """Backward is the derivative, by ``gpunet.gradcheck``.

    Raises
        GradientError: an AssertionError that names layer and tensor.
    """
    __tracebackhide__ = True
    gradcheck(layer_or_loss, shape, target=target, device=device, seed=seed, tolerance=tolerance)


def assert_parity(
    model: Sequential,
    loss: Loss,
    optimizer: Optimizer,
    batches: Iterable[Any],
    *,
    devices: tuple[str | Backend, str | Backend] = ("cpu", "cuda"),
    seed: int = 0,
) -> Report:
    """Training on these batches gives the same on two devices, as ``gpunet.parity.compare`` judges it.

    Raises
        AssertionError: it does not; the message is the whole report.
    """
    __tracebackhide__ = True
    return _agreeing(compare(model, loss, optimizer, batches, devices=devices, seed=seed))


def assert_replay(
    path: str | Path,
    *,
    device: str | Backend = "auto",
    layers: Sequence[type[Layer]] = (),
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
) -> Report:
    """A recorded run gives the same on a device, as ``gpunet.parity.replay`` judges it.

    Raises
        AssertionError: it does not; the message is the whole report.
    """
    __tracebackhide__ = True
    return _agreeing(replay(path, device=device, layers=layers, loss=loss, optimizer=optimizer))


def _agreeing(report: Report) -> Report:
    __tracebackhide__ = True
    if not report.ok:
        raise AssertionError(str(report))
    return report
