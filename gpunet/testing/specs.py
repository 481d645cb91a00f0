"""What the suites must know of a layer, a loss, an optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from gpunet.backend import Backend, Shape
from gpunet.errors import ArgumentError

Made = TypeVar("Made")
Spec = TypeVar("Spec", "LayerSpec", "LossSpec", "OptimizerSpec")


def check_shape(shape: Any, least: int) -> None:
    """Refuse what is no shape of a batch."""
    whole = isinstance(shape, tuple) and all(isinstance(n, int) and n > 0 for n in shape)
    if not whole or len(shape) < 1 or shape[0] < least:
        raise ArgumentError(f"shape is that of a batch of at least {least} samples, such as (5, 4), but got {shape!r}.")


def check_reference(reference: Any, signature: str) -> None:
    """Refuse what is no formula."""
    if reference is not None and not callable(reference):
        raise ArgumentError(f"reference is a function {signature}, but got a {type(reference).__name__}.")


@dataclass(frozen=True)
class LayerSpec:
    """A layer's inputs, and its output by an independent formula.

    shape      of a batch, its first axis the samples; three or more, so that one stands between others
    reference  (x, parameters by name) -> y in float64, as of a training step; None: not compared. Random layers are
               given seed 7 and step 1
    maps       only elementwise arithmetic: outputs get the budget of an element, not that of a sum
    mixes      whether a sample's output depends on the other samples: in training, as batch statistics do, or always
    special    values that are planted in the input: NaN must come out where the formula says so and nowhere else, from
               finite ones what is finite there
    name       for messages; that of the class by default
    """

    shape: Shape
    reference: Callable[[Any, Mapping[str, Any]], Any] | None = None
    maps: bool = False
    mixes: Literal["never", "in training", "always"] = "never"
    special: tuple[float, ...] = (math.nan, 1e4, -1e4)
    name: str | None = None

    def __post_init__(self) -> None:
        check_shape(self.shape, 3)
        if self.mixes not in ("never", "in training", "always"):
            raise ArgumentError(f"mixes is 'never', 'in training' or 'always', but got {self.mixes!r}.")
        check_reference(self.reference, "(x, parameters by name) -> y")


@dataclass(frozen=True)
class LossSpec:
    """A loss's predictions and targets, its value and gradient by an independent formula.

    shape      of the predictions of a batch
    reference  (prediction, target) -> (value, gradient) in float64; None: compared with the reference device instead
    target     (shape of the predictions, seed) -> target; None: the loss draws it
    name       for messages; that of the class by default
    """

    shape: Shape
    reference: Callable[[Any, Any], tuple[Any, Any]] | None = None
    target: Callable[[Shape, int], Any] | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        check_shape(self.shape, 1)
        check_reference(self.reference, "(prediction, target) -> (value, gradient)")


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer's update by an independent formula.

    reference  (p, g, state, t) -> p in float64. state is a dict, empty at first, where the formula keeps its slots
               under their names; t counts from 1. None: compared with the reference device instead
    name       for messages; that of the class by default
    """

    reference: Callable[[Any, Any, MutableMapping[str, Any], int], Any] | None = None
    name: str | None = None


@dataclass(frozen=True, eq=False)
class Case(Generic[Made, Spec]):
    """One thing under test.

    make  a class, or a function without arguments that makes one
    spec  what is known of it
    name  of the tests
    """

    make: Callable[[], Made]
    spec: Spec
    name: str

    @classmethod
    def of(cls, make: Callable[[], Made], spec: Spec) -> Case[Made, Spec]:
        """Named as the spec says, or as the class or function is.

        Raises
            ArgumentError: something that was made already instead of what makes it.
        """
        if not callable(make) or (hasattr(type(make), "bind") and not isinstance(make, type)):  # losses can be called
            raise ArgumentError(
                f"a suite takes a class, or a function without arguments that makes one, but got {make!r:.100}. "
                "Write `lambda: …`: each test makes a new one."
            )
        return cls(make, spec, spec.name or getattr(make, "__name__", type(make).__name__).replace("<lambda>", ""))

    @cached_property
    def title(self) -> str:
        """For messages: the class, and the name of the spec if it says more."""
        kind = type(self.make()).__name__
        return kind if self.name.replace("_", "").lower() in ("", kind.lower()) else f"{kind} '{self.name}'"


@dataclass(frozen=True)
class Check:
    """A check, and which tests are made of it: one for each of its data types, on each device.

    run      (case, device, dtype, seed); raises AssertionError
    applies  whether a spec says enough for it
    """

    run: Callable[[Any, Backend, str, int], None]
    dtypes: tuple[str, ...]
    applies: Callable[[Any], bool] = lambda spec: True

    @property
    def name(self) -> str:
        """Of the function."""
        return self.run.__name__

    def __call__(self, case: Case[Any, Any], device: Backend, dtype: str, seed: int) -> None:
        """Run it, with inputs drawn by this seed.

        Raises
            AssertionError: something is wrong; the message names the layer, the tensor, the device, error and budget.
        """
        __tracebackhide__ = True
        with device.scope():
            self.run(case, device, dtype, seed)


def known(spec: Any) -> bool:
    """Is there an independent formula?"""
    return spec.reference is not None
