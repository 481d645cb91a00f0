"""Learning rates that change from step to step: formulas of the number of the step, computed on the device.

``optimizer = optim.Adam(schedules.Cosine(1e-3, steps=10_000))``. Steps count from 0. A schedule is itself a function of
the step, for plots: ``schedules.Cosine(1e-3, steps=100)(50)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from numbers import Integral
from typing import Any

from gpunet.backend import Array, host
from gpunet.errors import ArgumentError

MOST_STEPS = 2**31
"""Up to which restarts are known."""


class Schedule:
    """Base of all: ``formula(xp, step)`` is the learning rate at a step, a 0-d float."""

    def formula(self, xp: Any, step: Array) -> Array:
        """The learning rate."""
        raise NotImplementedError(f"{type(self).__name__} does not define formula")

    def __call__(self, step: float) -> float:
        """The learning rate at a step, in float64 on the host."""
        xp = host().xp
        return float(self.formula(xp, xp.asarray(float(step))))

    def _check(self, **positive: float) -> None:
        """Refuse numbers that are not positive."""
        for name, value in positive.items():
            if not value > 0:
                raise ArgumentError(f"{type(self).__name__} needs {name} > 0, but got {value!r}.")


@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The same at every step; a part of a ``Chain``."""

    rate: float = field(kw_only=False)

    def formula(self, xp: Any, step: Array) -> Array:
        """rate"""
        return self.rate + 0 * step


@dataclass(frozen=True, kw_only=True)
class StepDecay(Schedule):
    """Times gamma each so many steps: rate γ^⌊step / every⌋."""

    rate: float = field(kw_only=False)
    every: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        self._check(every=self.every, gamma=self.gamma)

    def formula(self, xp: Any, step: Array) -> Array:
        """rate γ^⌊step / every⌋"""
        return self.rate * xp.exp(math.log(self.gamma) * xp.floor(step / self.every))


@dataclass(frozen=True, kw_only=True)
class MultiStep(Schedule):
    """Times gamma at each milestone."""

    rate: float = field(kw_only=False)
    milestones: Sequence[int]
    gamma: float = 0.1

    def __post_init__(self) -> None:
        self._check(gamma=self.gamma)

    def formula(self, xp: Any, step: Array) -> Array:
        """rate γ^(milestones so far)"""
        rate = self.rate + 0 * step
        for milestone in self.milestones:
            rate = xp.where(step >= milestone, rate * self.gamma, rate)
        return rate


@dataclass(frozen=True, kw_only=True)
class Exponential(Schedule):
    """Times gamma at every step: rate γ^step."""

    rate: float = field(kw_only=False)
    gamma: float

    def __post_init__(self) -> None:
        self._check(gamma=self.gamma)

    def formula(self, xp: Any, step: Array) -> Array:
        """rate γ^step"""
        return self.rate * xp.exp(math.log(self.gamma) * step)


@dataclass(frozen=True, kw_only=True)
class Polynomial(Schedule):
    """Down to ``end`` in so many steps: end + (rate - end) (1 - step / steps)^power; a line by default."""

    rate: float = field(kw_only=False)
    steps: int
    power: float = 1.0
    end: float = 0.0

    def __post_init__(self) -> None:
        self._check(steps=self.steps, power=self.power)

    def formula(self, xp: Any, step: Array) -> Array:
        """end + (rate - end) (1 - step / steps)^power"""
        left = 1 - xp.minimum(step, float(self.steps)) / self.steps
        return self.end + (self.rate - self.end) * left**self.power


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Down to ``end`` along half a cosine in so many steps.

    Reference: Loshchilov, Hutter: SGDR: Stochastic Gradient Descent with Warm Restarts (2017).
    """

    rate: float = field(kw_only=False)
    steps: int
    end: float = 0.0

    def __post_init__(self) -> None:
        self._check(steps=self.steps)

    def formula(self, xp: Any, step: Array) -> Array:
        """end + (rate - end) (1 + cos(π step / steps)) / 2"""
        done = xp.minimum(step, float(self.steps)) / self.steps
        return _half_cosine(xp, self.rate, self.end, done)


@dataclass(frozen=True, kw_only=True)
class CosineRestarts(Schedule):
    """A ``Cosine`` that begins again after so many steps, then after ``factor`` times as many each time.

    Reference: Loshchilov, Hutter: SGDR: Stochastic Gradient Descent with Warm Restarts (2017).
    """

    rate: float = field(kw_only=False)
    steps: int
    factor: int = 1
    end: float = 0.0

    def __post_init__(self) -> None:
        self._check(steps=self.steps)
        if not isinstance(self.factor, Integral) or self.factor < 1:
            raise ArgumentError(f"CosineRestarts needs a whole factor, at least 1, but got {self.factor!r}.")

    def formula(self, xp: Any, step: Array) -> Array:
        """That of Cosine, at the steps since the last restart"""
        begin, steps = self.steps * xp.floor(step / self.steps), self.steps + 0 * step
        if self.factor > 1:
            begin = 0 * step
            restart, length = self.steps, self.steps * self.factor
            while restart < MOST_STEPS:
                begin, steps = (xp.where(step >= restart, n, old) for n, old in ((restart, begin), (length, steps)))
                restart, length = restart + length, length * self.factor
        return _half_cosine(xp, self.rate, self.end, (step - begin) / steps)


@dataclass(frozen=True, kw_only=True)
class Warmup(Schedule):
    """Up from ``start`` along a line in so many steps, then constant.

    Reference: Goyal et al.: Accurate, Large Minibatch SGD (2017).
    """

    rate: float = field(kw_only=False)
    steps: int
    start: float = 0.0

    def __post_init__(self) -> None:
        self._check(steps=self.steps)

    def formula(self, xp: Any, step: Array) -> Array:
        """start + (rate - start) min(step / steps, 1)"""
        return self.start + (self.rate - self.start) * xp.minimum(step / self.steps, 1.0)


@dataclass(frozen=True, kw_only=True)
class InverseSquareRoot(Schedule):
    """Up along a line in so many steps, then down with the square root of the step.

    Reference: Vaswani et al.: Attention Is All You Need (2017).
    """

    rate: float = field(kw_only=False)
    steps: int

    def __post_init__(self) -> None:
        self._check(steps=self.steps)

    def formula(self, xp: Any, step: Array) -> Array:
        """rate min(s / steps, √(steps / s)),  s = step + 1"""
        s = step + 1
        return self.rate * xp.minimum(s / self.steps, xp.sqrt(self.steps / s))


@dataclass(frozen=True, kw_only=True)
class OneCycle(Schedule):
    """Up to ``rate`` along half a cosine in a part of the steps, then down to almost nothing along another.

    It begins at rate / 25 and ends at that / 10⁴; momentum stays as it is.

    Reference: Smith, Topin: Super-Convergence (2018).
    """

    rate: float = field(kw_only=False)
    steps: int
    warmup: float = 0.3

    def __post_init__(self) -> None:
        if not (0 < self.warmup < 1 and self.steps * self.warmup > 1 and self.steps * (1 - self.warmup) > 0):
            raise ArgumentError(
                f"OneCycle needs 0 < warmup < 1 and steps * warmup > 1, but got {self.warmup!r} and {self.steps!r}."
            )

    def formula(self, xp: Any, step: Array) -> Array:
        """Two half cosines"""
        low, end = self.rate / 25, self.rate / 25e4
        top, last = self.warmup * self.steps - 1, self.steps - 1
        up = xp.minimum(step / top, 1.0)
        down = xp.minimum((step - top) / (last - top), 1.0)
        rising = _half_cosine(xp, low, self.rate, up)
        falling = _half_cosine(xp, self.rate, end, down)
        return xp.where(step <= top, rising, falling)


class Chain(Schedule):
    """One schedule after another, each counting from 0: ``Chain(Warmup(1e-3, steps=100), Cosine(1e-3, steps=900))``.

    ends  the steps at which the next one begins; those of the schedules by default
    """

    def __init__(self, *parts: Schedule, ends: Sequence[int] | None = None):
        lengths = [getattr(part, "steps", 0) for part in parts[:-1]]
        self.parts, self.ends = parts, list(accumulate(lengths)) if ends is None else list(ends)
        if len(parts) < 2 or len(self.ends) != len(parts) - 1 or any(b <= a for a, b in pairwise([0, *self.ends])):
            raise ArgumentError(
                f"Chain needs two schedules or more, and rising ends of all but the last, but got {len(parts)} and "
                f"{self.ends}. Say ends=[...]."
            )

    def __repr__(self) -> str:
        return f"Chain({', '.join(map(repr, self.parts))}, ends={self.ends})"

    def formula(self, xp: Any, step: Array) -> Array:
        """That of the part whose turn it is"""
        rate = self.parts[0].formula(xp, step)
        for part, begin in zip(self.parts[1:], self.ends, strict=True):
            rate = xp.where(step >= begin, part.formula(xp, xp.maximum(step - begin, 0.0)), rate)
        return rate


def _half_cosine(xp: Any, first: float, last: float, done: Array) -> Array:
    """From the first to the last number, as ``done`` goes from 0 to 1"""
    return last + (first - last) * (0.5 * (1 + xp.cos(math.pi * done)))
