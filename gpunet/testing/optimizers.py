"""The checks of an optimizer. Each is a function (case, device, dtype, seed) that raises AssertionError.

Results are compared on the host, so every check waits for the device.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

from gpunet.backend import Backend, host
from gpunet.backend import device as open_device
from gpunet.errors import ArgumentError
from gpunet.layers.activations import Tanh
from gpunet.layers.dense import Dense
from gpunet.layers.sequential import Sequential
from gpunet.optim import Optimizer
from gpunet.parity.budgets import allowed
from gpunet.testing.judging import BOTH, DOUBLE, SINGLE, Arrays, Site, drawn, rounded, size
from gpunet.testing.rig import Truth
from gpunet.testing.specs import Case, Check, OptimizerSpec, known

OptimizerCase: TypeAlias = Case[Optimizer, OptimizerSpec]
STEPS = 20
FROZEN = "0.weight"


class Run:
    """A small model, an optimizer, and gradients for its steps.

    gradients  by parameter, the first axis the steps; host arrays as the data type has them, in float64
    """

    def __init__(self, case: OptimizerCase, device: Backend, dtype: str, seed: int, *, inputs: str | None = None):
        self.optimizer = case.make()
        if not isinstance(self.optimizer, Optimizer):
            raise ArgumentError(f"optimizer_suite is for optimizers, but {case.name} makes {self.optimizer!r:.100}.")
        self.model = Sequential(Dense(3), Tanh(), Dense(2, use_bias=False)).build(
            (4,), device=device, dtype=dtype, seed=seed
        )
        self.device = device
        self.start, self.gradients = weights_and_gradients(inputs or dtype, seed)
        self.model.set_weights(self.start)

    def step(self, t: int, gradients: Arrays | None = None) -> None:
        """One update with the gradients of step t, counted from 1; frozen parameters get none."""
        self.give(t, gradients)
        self.optimizer.update(self.model)

    def give(self, t: int, gradients: Arrays | None = None) -> None:
        """Write gradients as a backward pass does."""
        self.model.store.begin()
        for p in self.model.store.trainable:
            p.add_grad(self.device.asarray((gradients or self.gradients)[p.name][t - 1], self.model.dtype))

    def found(self) -> Arrays:
        """Weights and state, by what messages call them."""
        found = {f"weight '{name}'": w for name, w in self.model.get_weights().items()}
        for name, value in self.optimizer.get_state().items():
            slot, _, parameter = name.partition("/")
            if parameter:
                found[f"state '{slot}' of '{parameter}'"] = value
        return found

    def steps(self, count: int) -> Arrays:
        """Weights and state after so many."""
        for t in range(1, count + 1):
            self.step(t)
        return self.found()


@lru_cache(maxsize=64)
def weights_and_gradients(dtype: str, seed: int) -> tuple[Arrays, Arrays]:
    """By parameter, as the data type has them; of gradients one for each step."""
    shapes = {"0.weight": (4, 3), "0.bias": (3,), "2.weight": (3, 2)}
    weights = {name: rounded(drawn(seed, name, shape), dtype) for name, shape in shapes.items()}
    gradients = {name: rounded(drawn(seed, f"d{name}", (STEPS, *shape)), dtype) for name, shape in shapes.items()}
    return weights, gradients


@lru_cache(maxsize=512)
def truth(case: OptimizerCase, dtype: str, seed: int, which: str = "1" * STEPS, factor: float = 1.0) -> Truth:
    """Weights and state by the spec's formula, or by the reference device if there is none.

    which   for each step 1, or 0 if the parameters of the first layer are frozen in it
    factor  of the gradients
    """
    weights, gradients = weights_and_gradients(dtype, seed)
    xp, names, kinds = host().xp, list(weights), 1 + len(case.make().slots)
    # weights and state are rounded in each step, and constants such as 1 - lr · decay each time in the same direction
    inputs = {f"rounding {name}": xp.ones((len(which), kinds, *w.shape)) for name, w in weights.items()}
    inputs |= {f"weight {name}": w for name, w in weights.items()}
    inputs |= {f"gradient {name}": factor * g for name, g in gradients.items()}
    by = _by_reference if case.spec.reference is None else _by_formula

    def compute(arrays: Arrays) -> Arrays:
        of = {kind: {n: arrays[f"{kind} {n}"] for n in names} for kind in ("weight", "gradient", "rounding")}
        return by(case, of["weight"], of["gradient"], of["rounding"], which)

    return allowed(compute, inputs, size(1, dtype), seed=seed)


def _by_formula(case: OptimizerCase, weights: Arrays, gradients: Arrays, factors: Arrays, which: str) -> Arrays:
    formula = case.spec.reference
    assert formula is not None
    found: Arrays = {}
    for name, p in weights.items():
        state: dict[str, Any] = {}
        with host().scope():
            for t, free in enumerate(which, start=1):
                if free == "1" or not name.startswith("0."):
                    own, *others = factors[name][t - 1]
                    p = formula(p, gradients[name][t - 1], state, t) * own
                    # a formula may keep more than the optimizer does
                    state |= {slot: state[slot] * one for slot, one in zip(state, others, strict=False)}
        found[f"weight '{name}'"] = p
        found |= {f"state '{slot}' of '{name}'": value for slot, value in state.items()}
    return found


def _by_reference(case: OptimizerCase, weights: Arrays, gradients: Arrays, factors: Arrays, which: str) -> Arrays:
    run = Run(case, open_device("reference"), "float64", 0)
    run.model.set_weights(weights)
    for t, free in enumerate(which, start=1):
        run.model.freeze("0.*", frozen=free == "0")
        run.step(t, gradients)
        run.model.set_weights({n: w * factors[n][t - 1][0] for n, w in run.model.get_weights().items()})
        state = run.optimizer.get_state()
        for i, slot in enumerate(run.optimizer.slots, start=1):
            state |= {f"{slot}/{n}": state[f"{slot}/{n}"] * one[t - 1][i] for n, one in factors.items()}
        run.optimizer.set_state(state)
    return run.found()


def steps(case: OptimizerCase, device: Backend, dtype: str, seed: int) -> None:
    """Weights and state after twenty steps are those of the spec's formula."""
    found = Run(case, device, dtype, seed).steps(STEPS)
    _compare(case, Site.of(case, device, dtype, seed), found, truth(case, dtype, seed))


def _compare(case: OptimizerCase, site: Site, found: Arrays, judged_by: Truth, when: str = "") -> None:
    expected, limits = judged_by
    beside = ("the spec's formula" if known(case.spec) else "the reference device") + when
    for tensor, value in found.items():
        if tensor not in expected:
            site.fail(tensor, "is unknown to the spec's formula. Let it keep the state under this name")
        site.kept(tensor, value)
        site.close(tensor, value, expected[tensor], limits[tensor], beside)


def frozen(case: OptimizerCase, device: Backend, dtype: str, seed: int) -> None:
    """Frozen parameters stay, others go on, thawed ones find their state again; padding stays zero."""
    site, run = Site.of(case, device, dtype, seed), Run(case, device, dtype, seed)
    run.step(1)
    before = run.model.get_weights()
    run.model.freeze("0.*")
    for name, value in run.model.get_weights().items():
        site.same(f"weight '{name}'", value, before[name], "what it was before others were frozen")
    run.step(2)
    site.same(f"weight '{FROZEN}'", run.model.get_weights()[FROZEN], before[FROZEN], "what it was when it was frozen")
    _compare(case, site, run.found(), truth(case, dtype, seed, "10"), ": the state did not move with its parameter")
    run.model.freeze("0.*", frozen=False)
    run.step(3)
    _compare(case, site, run.found(), truth(case, dtype, seed, "101"), " after parameters were thawed")
    _padding(site, run)


def _padding(site: Site, run: Run) -> None:
    store = run.model.store
    for kind, buffer in {"values": store.values, **run.optimizer.state}.items():
        flat = host().xp.array(run.device.to_numpy(buffer))
        for p in store.parameters:
            flat[store.offsets[p.name] : store.offsets[p.name] + p.size] = 0
        site.same(f"padding of {kind}", flat, 0 * flat, "zero")


def learning_rate(case: OptimizerCase, device: Backend, dtype: str, seed: int) -> None:
    """It may change between steps: with 0 the weights stay."""
    site, run = Site.of(case, device, dtype, seed), Run(case, device, dtype, seed)
    run.step(1)
    before = run.model.get_weights()
    run.optimizer.learning_rate = 0.0
    run.step(2)
    for name, value in run.model.get_weights().items():
        site.same(f"weight '{name}'", value, before[name], "what it was before a step with learning rate 0")


def called_off(case: OptimizerCase, device: Backend, dtype: str, seed: int) -> None:
    """A step that is called off, as after a gradient of inf in float16, changes neither weights nor state nor t."""
    site, run = Site.of(case, device, dtype, seed), Run(case, device, dtype, seed)
    run.give(1)
    run.optimizer.prepare(run.model)
    before = run.found()
    run.optimizer.apply(run.model, unless=device.scalar(1.0, dtype))
    for tensor, value in run.found().items():
        site.same(tensor, value, before[tensor], "what it was before a step that was called off")
    run.optimizer.apply(run.model, unless=device.scalar(0.0, dtype))
    _compare(case, site, run.found(), truth(case, dtype, seed, "1"), " after a step that was called off, and one more")


def zero_gradients(case: OptimizerCase, device: Backend, dtype: str, seed: int) -> None:
    """Gradients of zero from the first step on divide nothing by zero."""
    site, run = Site.of(case, device, dtype, seed), Run(case, device, dtype, seed)
    for t in (1, 2):
        run.step(t, {name: 0 * g for name, g in run.gradients.items()})
    _compare(case, site, run.found(), truth(case, dtype, seed, "11", 0.0), " of zero gradients")


def resumed(case: OptimizerCase, device: Backend, dtype: str, seed: int) -> None:
    """State that was got and set again, with another model, goes on with the same bits. Without that it is refused."""
    site, run = Site.of(case, device, dtype, seed), Run(case, device, dtype, seed)
    run.steps(2)
    other = Run(case, device, dtype, seed)
    other.model.set_weights(run.model.get_weights())
    other.optimizer.prepare(other.model)
    other.optimizer.set_state(run.optimizer.get_state())
    other.optimizer.updates = run.optimizer.updates
    for one in (run, other):
        one.step(3)
    expected = run.found()
    for tensor, value in other.found().items():
        site.same(tensor, value, expected[tensor], "that of the run that was not interrupted")
    try:
        run.optimizer.update(other.model)
    except ArgumentError as error:
        assert "belongs to another model" in str(error), f"{site.title}: '{error}'"
    else:
        raise AssertionError(f"{site.title} on {site.device}: a second model is not refused")


CHECKS = (
    Check(steps, BOTH),
    Check(frozen, DOUBLE),
    Check(learning_rate, DOUBLE),
    Check(called_off, DOUBLE),
    Check(zero_gradients, SINGLE),
    Check(resumed, DOUBLE),
)
