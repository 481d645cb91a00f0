"""Optimizer: one formula over the flat store."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any, TypeAlias

from gpunet.backend import Array
from gpunet.errors import ArgumentError
from gpunet.layers.sequential import Sequential
from gpunet.parameter import ParameterStore
from gpunet.schedules import Schedule

Rate: TypeAlias = float | Schedule | Callable[[int], float]
"""A learning rate, or what gives it for the number of a step."""
RANGES = {
    "in [0, 1)": lambda value: 0 <= value < 1,
    ">= 0": lambda value: 0 <= value < math.inf,
    "> 0": lambda value: 0 < value < math.inf,
}


@dataclass(eq=False, kw_only=True)
class Optimizer:
    """A formula (p, g, *slots, lr, t) -> (p, *slots), run in place over all trainable parameters in one pass.

    slots          names of the flat state buffers, in the formula's order; they start as zero
    learning_rate  a number, a schedule, or a function of the step's number; may be set between steps. It is an
                   operand. All else that the formula reads is a constant.
    schedule       the one that is followed now, or None
    updates        steps done, which a function is given; whoever calls ``prepare`` and ``apply`` counts them
    """

    learning_rate: Rate
    state: dict[str, Array] = field(init=False, repr=False, default_factory=dict)
    _store: ParameterStore | None = field(init=False, repr=False, default=None)
    _version: int = field(init=False, repr=False, default=0)
    schedule: Schedule | None = field(init=False, repr=False, default=None)
    updates: int = field(init=False, repr=False, default=0)
    _lr_value: float = field(init=False, repr=False, default=0.0)
    _offsets: dict[str, int] = field(init=False, repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._check_learning_rate(self.learning_rate)

    def _check(self, rule: str, *names: str) -> None:
        """Refuse settings outside a range of RANGES."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, Real) or not RANGES[rule](value):
                usual = next(f.default for f in fields(self) if f.name == name)
                raise ArgumentError(
                    f"{type(self).__name__} needs {name} {rule}, but got {value!r}. The default is {usual!r}."
                )

    def _check_learning_rate(self, rate: Any) -> None:
        if not callable(rate) and not (isinstance(rate, Real) and float(rate) >= 0):
            raise ArgumentError(
                f"{type(self).__name__} needs learning_rate >= 0, a schedule or a function, but got {rate!r}."
            )

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the state buffers."""
        return ()

    def formula(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """(p, *slots) from (p, g, *slots, lr, t)."""
        raise NotImplementedError(f"{type(self).__name__} does not define formula")

    def update(self, model: Sequential) -> None:
        """One step with the model's gradients; those that no layer wrote count as zero."""
        self.prepare(model)
        self.apply(model)
        self.updates += 1

    def prepare(self, model: Sequential) -> None:
        """What a step needs of the host: state for the store's layout, a learning rate that was changed."""
        store = model.store
        if self._store is not store or self._version != store.version:
            self._lay_out(store)
        rate = self.learning_rate
        if isinstance(rate, Schedule):
            if self.schedule is not rate:
                self.schedule, self._scheduled, self._lr_value = rate, store.backend.fuse(_at(rate)), math.nan
        else:
            self.schedule = None
            value = rate(self.updates) if callable(rate) else rate
            if value != self._lr_value:
                self._check_learning_rate(value)
                self._lr_value = value
                self._lr[...] = value

    def apply(self, model: Sequential, unless: Array | None = None) -> None:
        """The step itself, on the device alone; nothing is changed if the 0-d array ``unless`` is positive."""
        store, state = model.store, (self._p, *self._state)
        store.finish()
        if unless is None:
            self._t += 1
            if self.schedule is not None:
                self._scheduled(self._t, out=self._lr)
            self._fused(self._p, self._g, *self._state, self._lr, self._t, out=state)
        else:
            store.fused(_next)(self._t, unless, out=self._t)
            if self.schedule is not None:
                self._scheduled(self._t, out=self._lr)
            store.fused(self._guarded)(self._p, self._g, *self._state, self._lr, self._t, unless, out=state)
        store.refresh(store.trainable_end)

    def _guarded(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """The formula, or what was there where ``unless`` is positive."""
        *operands, unless = rest
        kept = (p, *operands[:-2])
        return tuple(xp.where(unless > 0, a, b) for a, b in zip(kept, self.formula(xp, p, g, *operands), strict=True))

    def _lay_out(self, store: ParameterStore) -> None:
        """State for the store's layout. Frozen parameters keep theirs for when they are thawed."""
        if self._store is not None and self._store is not store:
            raise ArgumentError(f"this {type(self).__name__} belongs to another model. Make a new one for each model.")
        backend, end = store.backend, store.trainable_end
        first = self._store is None
        old, places = self.state, self._offsets
        self.state = {name: backend.zeros(store.values.shape, store.dtype) for name in self.slots}
        for p in store.parameters:
            if p.name in places:
                for name in self.slots:
                    start = places[p.name]
                    store.view(self.state[name], p)[...] = backend.xp.reshape(
                        old[name][start : start + p.size], p.shape
                    )
        self._offsets = dict(store.offsets)
        self._state = [self.state[name][:end] for name in self.slots]
        self._p, self._g = store.values[:end], store.grads[:end]
        if first:
            self._fused = backend.fuse(self.formula)
            self._t = backend.zeros((), store.dtype)  # counted on the device: exact to 2**24 in float32
            self._lr = backend.zeros((), store.dtype)
        self._store, self._version = store, store.version


def _at(schedule: Schedule) -> Any:
    """The learning rate as a formula of t, which counts from 1."""
    return lambda xp, t: schedule.formula(xp, t - 1)


def _next(xp: Any, t: Array, unless: Array) -> Array:
    return xp.where(unless > 0, t, t + 1)


def decayed(g: Array, p: Array, weight_decay: float) -> Array:
    """The gradient of the loss + weight_decay / 2 · Σ p²; as it was where weight_decay is 0."""
    return g + weight_decay * p if weight_decay else g


def one_minus_power(xp: Any, beta: float, t: Array) -> Any:
    """1 - βᵗ; the plain form loses 1e-5 in float32."""
    return -xp.expm1(t * math.log(beta)) if beta > 0 else 1 + 0 * t
