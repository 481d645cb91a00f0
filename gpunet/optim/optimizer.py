"""Optimizer: one formula over the flat store."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any, TypeAlias

from gpunet.backend import Array, host
from gpunet.errors import ArgumentError, NotBuiltError, ShapeError
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
    groups         other settings for parameters whose names match a pattern, the first one that does:
                   ``groups={"*.bias": {"weight_decay": 0.0}}``. Fixed from the start; a learning rate may be a
                   schedule. A group that has none follows the optimizer's. Each is a pass of its own.
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
        if not isinstance(self.groups, Mapping) or not all(isinstance(one, Mapping) for one in self.groups.values()):
            raise ArgumentError(
                f"{type(self).__name__} needs groups as {{pattern: settings}}, but got {self.groups!r}. "
                'Write groups={"*.bias": {"weight_decay": 0.0}}.'
            )
        self.groups = {pattern: dict(settings) for pattern, settings in self.groups.items()}
        self._of_groups()  # refuses bad settings

    def _of_groups(self) -> list[Optimizer]:
        """An optimizer for each group, with its settings."""
        known, found = [f.name for f in fields(self) if f.init and f.name != "groups"], []
        for pattern, settings in self.groups.items():
            if unknown := [name for name in settings if name not in known]:
                raise ArgumentError(
                    f"{type(self).__name__} has no setting '{unknown[0]}' for the group '{pattern}'. It has: "
                    f"{', '.join(known)}."
                )
            found.append(replace(self, groups={}, **settings))
        return found

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

    def once(self, xp: Any, t: Array) -> Array | None:
        """A 0-d function of t that the formula is given behind t, too: for what is long, and computed once a step."""
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

    def get_state(self) -> dict[str, Any]:
        """Copies of the state as host arrays, by slot and parameter, and the number of steps as "t"."""
        store = self._prepared()
        state = {f"{slot}/{p.name}": store.view(self.state[slot], p) for slot in self.state for p in store.parameters}
        xp, to_numpy = host().xp, store.backend.to_numpy  # synchronises: the state is wanted on the host
        return {name: xp.array(to_numpy(value)) for name, value in (state | {"t": self._t}).items()}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from what ``get_state`` returned, for the same parameters and settings.

        Raises
            ArgumentError: something is missing.   ShapeError: an array of another shape. Nothing is changed then.
        """
        targets, store = self.check_state(state), self._prepared()
        with store.backend.scope():
            for name, target in targets.items():
                target[...] = store.backend.asarray(state[name], store.dtype)

    def check_state(self, state: Mapping[str, Any]) -> dict[str, Array]:
        """Where each part of a state belongs; refuses what ``set_state`` refuses."""
        store = self._prepared()
        targets = {f"{slot}/{p.name}": store.view(self.state[slot], p) for slot in self.state for p in store.parameters}
        targets["t"] = self._t
        for name, target in targets.items():
            if name not in state:
                raise ArgumentError(
                    f"the state of {type(self).__name__} has no '{name}'. Give what get_state returned."
                )
            if tuple(host().asarray(state[name]).shape) != tuple(target.shape):
                raise ShapeError(
                    f"'{name}' has shape {tuple(target.shape)}, but got {host().asarray(state[name]).shape}."
                )
        return targets

    def detach(self) -> None:
        """Forget the model and all state."""
        self._store, self._groups, self.state, self._offsets = None, [], {}, {}

    def _prepared(self) -> ParameterStore:
        if self._store is None:
            raise NotBuiltError(f"this {type(self).__name__} has no state yet. Call optimizer.prepare(model) first.")
        if self._version != self._store.version:  # parameters were frozen or thawed since
            with self._store.backend.scope():
                self._lay_out(self._store)
        return self._store

    def guarded(self, xp: Any, p: Array, g: Array, *rest: Array) -> tuple[Array, ...]:
        """The formula, or what was there where ``unless`` is positive."""
        *operands, unless = rest
        kept = (p, *operands[: len(self.slots)])
        return tuple(xp.where(unless > 0, a, b) for a, b in zip(kept, self.formula(xp, p, g, *operands), strict=True))

    def _lay_out(self, store: ParameterStore) -> None:
        """State for the store's layout. Frozen parameters keep theirs for when they are thawed."""
        if self._store is not None and self._store is not store:
            raise ArgumentError(f"this {type(self).__name__} belongs to another model. Make a new one for each model.")
        if self.groups:
            store.arrange(self._groups_of(store))
            spans = store.spans
        else:
            spans = {0: (0, store.trainable_end)}  # whatever groups another optimizer has
        settings = [group.settings for group in self._groups] or [self, *self._of_groups()]
        slots = list(dict.fromkeys(slot for one in settings for slot in one.slots))
        empty = store.backend.zeros((0,), store.dtype)
        self.state = {slot: store.moved(self.state.get(slot, empty), self._offsets) for slot in slots}
        if self._store is None:
            self._t = store.backend.zeros((), store.dtype)  # counted on the device: exact to 2**24 in float32
            self._groups = [_Group(self, store, None)]
            for one, own in zip(settings[1:], self.groups.values(), strict=True):
                self._groups.append(_Group(one, store, None if "learning_rate" in own else self._groups[0].lr))
        for number, group in enumerate(self._groups):
            group.place(self.state, *spans.get(number, (0, 0)))
        self._offsets, self._store, self._version = dict(store.offsets), store, store.version

    def _groups_of(self, store: ParameterStore) -> list[int]:
        """The number of each parameter's group: 0, or 1 and up for the first pattern that matches its name."""
        patterns, names = list(self.groups), [p.name for p in store.parameters]
        found = [next((n for n, one in enumerate(patterns, 1) if fnmatchcase(name, one)), 0) for name in names]
        for n, pattern in enumerate(patterns, 1):
            if n not in found:
                why = "but one before it does" if any(fnmatchcase(name, pattern) for name in names) else "and none does"
                raise ArgumentError(
                    f"a group needs a parameter that matches it first, {why} for '{pattern}'. "
                    f"The parameters are: {', '.join(names)}"
                )
        return found


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
        self._once = None if type(settings).once is Optimizer.once else backend.fuse(settings.once)

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
        if self._once is not None:
            operands = (*operands, self._once(t))
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
