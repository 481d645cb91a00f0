"""Cases for the suites: a name, what makes a layer, a loss, an optimizer, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpunet import testing
from gpunet.testing.specs import Case


class LayerCase(Case):
    """What tests of other things read of a layer's spec."""

    @property
    def shape(self) -> tuple[int, ...]:
        return self.spec.shape

    @property
    def reference(self) -> Any:
        return self.spec.reference


def LayerSpec(
    name: str, make: Callable[[], Any], shape: tuple[int, ...], reference: Any = None, **known: Any
) -> LayerCase:
    """A layer, the shape of a batch, and its output by an independent formula in float64."""
    return LayerCase.of(make, testing.LayerSpec(shape, reference, name=name, **known))


def LossSpec(name: str, make: Callable[[], Any], shape: tuple[int, ...], target: Any, reference: Any) -> Case:
    """A loss, the shape of predictions, targets for (shape, seed), and (value, gradient) by an independent formula."""
    return Case.of(make, testing.LossSpec(shape, reference, target, name=name))


def OptimizerSpec(name: str, make: Callable[[], Any], reference: Any) -> Case:
    """An optimizer and its update of (p, g, state, t) by an independent formula in float64."""
    return Case.of(make, testing.OptimizerSpec(reference, name=name))
