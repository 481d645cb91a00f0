"""Context: what layers must know of the step they run in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from gpunet.backend import Array, Backend
from gpunet.errors import RecordingError

if TYPE_CHECKING:
    from gpunet.layer import Layer

Observer: TypeAlias = Callable[["Layer", Array], None]


@dataclass
class _Shared:
    """What a context and its inner one have in common."""

    observe: Observer | None
    draws: int = 0
    scalars: dict[int, Array] = field(default_factory=dict)
    counter: Array | None = None
    constants: dict[int, Array] = field(default_factory=dict)


class Context:
    """One step: several forward and backward pairs under one context add their gradients.

    training          dropout is active, gradients are to come
    step, seed        with the number of the draw, the key of all randomness
    counter           the step as a 0-d int64 array, if there is one; a step that is recorded has its number only there
    constants         0-d int64 arrays that steps share, by value
    version           of the parameters' layout
    needs_input_grad  whether the layer called shall return the gradient of its own input
    observe           called with each layer and its output; while it is set, pointwise layers are not merged
    """

    def __init__(
        self,
        backend: Backend,
        *,
        training: bool,
        step: int | None = 0,
        seed: int = 0,
        version: int = 0,
        needs_input_grad: bool = False,
        observe: Observer | None = None,
        counter: Array | None = None,
        constants: dict[int, Array] | None = None,
    ):
        self.backend, self.training, self._step, self.seed, self.version = backend, training, step, seed, version
        self.needs_input_grad = needs_input_grad
        self._shared = _Shared(observe, counter=counter, constants={} if constants is None else constants)
        self._inner: Context | None = None

    @property
    def step(self) -> int:
        """Number of the step.

        Raises
            RecordingError: while a step is recorded.
        """
        if self._step is None:
            raise RecordingError(
                "a layer reads ctx.step, which would be the same number in each step. Use ctx.random_key()."
            )
        return self._step

    @property
    def observe(self) -> Observer | None:
        """The observer, shared with inner contexts."""
        return self._shared.observe

    @observe.setter
    def observe(self, observer: Observer | None) -> None:
        self._shared.observe = observer

    @property
    def draws(self) -> int:
        """Random draws made so far; planning sets it back."""
        return self._shared.draws

    @draws.setter
    def draws(self, value: int) -> None:
        self._shared.draws = value

    def next_draw(self) -> int:
        """Number of this random draw, in forward order."""
        self._shared.draws += 1
        return self._shared.draws - 1

    def scalar(self, value: int) -> Array:
        """0-d int64 operand, made once per context."""
        scalars = self._shared.scalars
        if value not in scalars:
            scalars[value] = self.backend.scalar(value, "int64")
        return scalars[value]

    def random_key(self) -> tuple[Array, Array, Array]:
        """Seed, number of this draw, number of the step, as 0-d int64 operands: the key of ``random_bits``."""
        shared = self._shared
        if shared.counter is None:
            shared.counter = self.backend.scalar(self.step, "int64")
        key = (self.seed, self.next_draw())
        for value in key:
            if value not in shared.constants:
                shared.constants[value] = self.backend.scalar(value, "int64")
        return shared.constants[key[0]], shared.constants[key[1]], shared.counter

    def inner(self) -> Context:
        """The same step with ``needs_input_grad`` on: for every part but the first trainable one."""
        if self.needs_input_grad:
            return self
        if self._inner is None:
            self._inner = Context(
                self.backend,
                training=self.training,
                step=self._step,
                seed=self.seed,
                version=self.version,
                needs_input_grad=True,
            )
            self._inner._shared = self._shared
        return self._inner
