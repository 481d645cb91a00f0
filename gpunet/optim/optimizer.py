"""Optimizer: one formula over the flat store."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
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
    """A formula (p, g, *slots, lr, t, *more) -> (p, *slots), run in place over all trainable parameters in one pass.

    slots          names of the flat state buffers, in the formula's order; they start as zero
    learning_rate  a number, a schedule, or a function of the step's number; may be set between steps. It is an
                   operand. All else that the formula reads is a constant.
    groups         other settings for parameters whose names match a pattern, the first one that does:
                   ``groups={"*.bias": {"weight_decay": 0.0}}``. Each is a pass of its own; one that has no learning
                   rate follows the optimizer's.
    schedules      those that are followed now, by the optimizer and by groups with a learning rate of their own
    updates        steps done, which a function is given; whoever calls ``prepare`` and ``apply`` counts them
    """

    learning_rate: Rate
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    state: dict[str, Array] = field(init=False, repr=False, default_factory=dict)
    updates: int = field(init=False, repr=False, default=0)
    _store: ParameterStore | None = field(init=False, repr=False, default=None)
    _version: int = field(init=False, repr=False, default=0)
    _offsets: dict[str, int] = field(init=False, repr=False, default_factory=dict)
    _t: Array = field(init=False, repr=False, default=None)
    _groups: list[_Group] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        self.check_learning_rate(self.learning_rate)
        self._members = [self, *(self._with(pattern, settings) for pattern, settings in self.groups.items())]

    def _with(self, pattern: str, settings: Mapping[str, Any]) -> Optimizer:
        """An optimizer for a group."""
        known = [f.name for f in fields(self) if f.init and f.name != "groups"]
        if unknown := [name for name in settings if name not in known]:
            raise ArgumentError(
                f"{type(self).__name__} has no setting '{unknown[0]}' for the group '{pattern}'. It has: "
                f"{', '.join(known)}."
            )
        return replace(self, groups={}, **settings)

    def _check(self, rule: str, *names: str) -> None:
        """Refuse settings outside a range of RANGES."""
        for name in names:
            value = getattr(self, name)
            if not isinstance(value, Real) or not RANGES[rule](value):
                usual = next(f.default for f in fields(self) if f.name == name)
                raise ArgumentError(
                    f"{type(self).__name__} needs {name} {rule}, but got {value!r}. The default is {usual!r}."
                )

    def check_learning_rate(self, rate: Any) -> None:
        """Refuse what is no learning rate."""
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

    def more(self, xp: Any, t: Array) -> Array | None:
        """A 0-d function of t that the formula needs, too, if it is long: it is computed once a step."""
        return None

    def update(self, model: Sequential) -> None:
        """One step with the model's gradients; those that no layer wrote count as zero."""
        self.prepare(model)
        self.apply(model)
        self.updates += 1

    def prepare(self, model: Sequential) -> None:
        """What a step needs of the host: state for the store's layout, learning rates that were changed."""
        store = model.store
        if self._store is not store or self._version != store.version:
            self._lay_out(store)
        for group in self._groups:
            if group.owns_rate:
                group.follow(self.updates)

    @property
    def schedules(self) -> list[Schedule | None]:
        """Those that are followed now; None for learning rates that are numbers."""
        return [group.schedule for group in self._groups if group.owns_rate]

    def apply(self, model: Sequential, unless: Array | None = None) -> None:
        """The step itself, on the device alone; nothing is changed if the 0-d array ``unless`` is positive."""
        store = model.store
        store.finish()
        if unless is None:
            self._t += 1
        else:
            store.fused(_next)(self._t, unless, out=self._t)
        for group in self._groups:
            group.step(self._t, unless)
        store.refresh(store.trainable_end)

    def guarded(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """The formula, or what was there where ``unless`` is positive."""
        *operands, unless = rest
        kept = (p, *operands[: len(self.slots)])
        return tuple(xp.where(unless > 0, a, b) for a, b in zip(kept, self.formula(xp, p, g, *operands), strict=True))

    def _lay_out(self, store: ParameterStore) -> None:
        """State for the store's layout. Frozen parameters keep theirs for when they are thawed."""
        if self._store is not None and self._store is not store:
            raise ArgumentError(f"this {type(self).__name__} belongs to another model. Make a new one for each model.")
        store.arrange(self._groups_of(store))
        slots = list(dict.fromkeys(slot for member in self._members for slot in member.slots))
        empty = store.backend.zeros((0,), store.dtype)
        self.state = {slot: store.moved(self.state.get(slot, empty), self._offsets) for slot in slots}
        if self._store is None:
            self._t = store.backend.zeros((), store.dtype)  # counted on the device: exact to 2**24 in float32
            self._groups = [_Group(self, store, None)]
            for member, settings in zip(self._members[1:], self.groups.values(), strict=True):
                rate = None if "learning_rate" in settings else self._groups[0].lr
                self._groups.append(_Group(member, store, rate))
        for number, group in enumerate(self._groups):
            group.place(self.state, *store.spans.get(number, (0, 0)))
        self._offsets, self._store, self._version = dict(store.offsets), store, store.version

    def _groups_of(self, store: ParameterStore) -> list[int]:
        """The number of each parameter's group: 0, or 1 and up for the first pattern that matches its name."""
        patterns = list(self.groups)
        matches = [[n for n, pat in enumerate(patterns, 1) if fnmatchcase(p.name, pat)] for p in store.parameters]
        for n, pattern in enumerate(patterns, 1):
            if not any(n in found for found in matches):
                names = ", ".join(p.name for p in store.parameters)
                raise ArgumentError(f"no parameter matches the group '{pattern}'. The parameters are: {names}")
        return [found[0] if found else 0 for found in matches]


class _Group:
    """Parameters with the same settings: their part of the buffers, their learning rate on the device.

    lr         0-d; shared with the optimizer unless the group has its own
    schedule   the one that is followed now, or None
    """

    def __init__(self, settings: Optimizer, store: ParameterStore, lr: Array | None):
        backend = store.backend
        self.settings, self.store, self.owns_rate = settings, store, lr is None
        self.lr = backend.zeros((), store.dtype) if lr is None else lr
        self.schedule: Schedule | None = None
        self._value = math.nan
        self._fused, self._guarded = backend.fuse(settings.formula), backend.fuse(settings.guarded)
        self._more = None if type(settings).more is Optimizer.more else backend.fuse(settings.more)

    def place(self, state: Mapping[str, Array], start: int, end: int) -> None:
        """The group is there now."""
        flat = (self.store.values, self.store.grads, *(state[slot] for slot in self.settings.slots))
        self._views = tuple(buffer[start:end] for buffer in flat)
        self._results = (self._views[0], *self._views[2:])

    def follow(self, updates: int) -> None:
        """The learning rate that the settings have by now."""
        rate = self.settings.learning_rate
        if isinstance(rate, Schedule):
            if self.schedule is not rate:
                self.schedule, self._scheduled, self._value = rate, self.store.backend.fuse(_at(rate)), math.nan
        else:
            self.schedule = None
            value = rate(updates) if callable(rate) else rate
            if value != self._value:
                self.settings.check_learning_rate(value)
                self._value = value
                self.lr[...] = value

    def step(self, t: Array, unless: Array | None) -> None:
        """The update, on the device alone."""
        if self.schedule is not None:
            self._scheduled(t, out=self.lr)
        if not self._views[0].shape[0]:
            return  # all of it is frozen
        operands = (*self._views, self.lr, t)
        if self._more is not None:
            operands = (*operands, self._more(t))
        if unless is None:
            self._fused(*operands, out=self._results)
        else:
            self._guarded(*operands, unless, out=self._results)


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
