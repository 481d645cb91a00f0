"""A layer as a model on a device, what goes through it, and what float64 says of that."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, TypeAlias

from gpunet.backend import Backend, host
from gpunet.backend import device as open_device
from gpunet.context import Observer
from gpunet.errors import ArgumentError
from gpunet.layer import Layer, everything
from gpunet.layers.sequential import Sequential
from gpunet.optim import SGD
from gpunet.parity.budgets import DRAWS, Compute, allowed, terms
from gpunet.testing.judging import Arrays, drawn, rounded, size
from gpunet.testing.specs import Case, LayerSpec

LayerCase: TypeAlias = Case[Layer, LayerSpec]
Truth: TypeAlias = tuple[Arrays, dict[str, float]]
"""Results in float64 by name; for each the largest error that is allowed."""
STEP, SEED = 1, 7
"""The key of random layers, which a spec's formula has to know."""
OUTPUT, OUTSIDE, OF_INPUT = "output", "output outside training", "gradient of the input"


class Rig:
    """A case's layer as a model, and its inputs.

    x, dy  host arrays as the data type has them, in float64; x may be indices
    """

    def __init__(self, case: LayerCase, device: Backend, dtype: str, seed: int, *, inputs: str | None = None):
        """``inputs``: the data type of the inputs and parameters, if it is another than that of the model."""
        layer = case.make()
        if not isinstance(layer, Layer):
            raise ArgumentError(f"layer_suite is for layers, but {case.name} makes {layer!r:.100}.")
        whole = isinstance(layer, Sequential)
        self.model = layer if isinstance(layer, Sequential) else Sequential(layer)
        self.model.build(case.spec.shape[1:], device=device, dtype=dtype, seed=seed)
        self.device, self.prefix = device, "" if whole else f"{layer.name or 0}."
        self.drawn = {p.name: drawn(seed, p.name, p.shape) / 2 for p in self.model.store.parameters}
        self.drawn = {name: rounded(p, inputs or dtype) for name, p in self.drawn.items()}
        self.model.set_weights(self.drawn)
        self.x = rounded(batch(case, self.model, seed), inputs or dtype)
        self.dy = rounded(drawn(seed, "dy", (len(self.x), *self.model.output_shape)), inputs or dtype)
        self.optimizer = SGD(0.1)

    def run(self, x: Any = None, dy: Any = None, observe: Observer | None = None) -> Arrays:
        """Output and gradients of a training pass, as host arrays; no gradient of the input if that is indices."""
        model, device = self.model, self.device
        x = model.convert(self.x if x is None else x, device)
        dy = device.asarray(self.dy if dy is None else dy, model.dtype)
        ctx = model.context(training=True, step=STEP, seed=SEED, needs_input_grad=True, observe=observe)
        y, saved = model.forward(x, ctx)
        found = {OUTPUT: host().xp.array(device.to_numpy(y))}
        dx = model.backward(dy, saved, ctx)
        if dx is not None:
            found[OF_INPUT] = host().xp.array(device.to_numpy(dx))
        return found | self.gradients()

    def gradients(self) -> Arrays:
        """Of the parameters, by what messages call them."""
        return {self.gradient(name): value for name, value in self.model.get_gradients().items()}

    def gradient(self, name: str) -> str:
        """What messages call the gradient of a parameter of this name in the model."""
        return f"gradient of '{name.removeprefix(self.prefix)}'"

    def step(self) -> Arrays:
        """The same, the output outside training, and parameters and states after an update of SGD."""
        found = self.run() | {OUTSIDE: self.model.predict(self.x)}
        self.optimizer.update(self.model)
        after = self.model.get_weights()
        return found | {f"'{name.removeprefix(self.prefix)}' after a step": value for name, value in after.items()}

    @property
    def terms(self) -> int:
        """The longest sum in it."""
        inner = [one.built for one in everything(self.model) if one.built is not None]
        n = len(self.x)
        return max(terms((n, *x), (n, *y)) for x, y in inner)


def batch(case: LayerCase, model: Sequential, seed: int) -> Any:
    """Inputs in float64, or indices for a layer that takes those."""
    entries, xp = model.indices(), host().xp
    if entries is None:
        return drawn(seed, "x", case.spec.shape)
    return xp.astype(entries * host().uniform(seed, "x", tuple(case.spec.shape)), xp.int32)


def planted(rig: Rig, values: tuple[float, ...], seed: int) -> Any:
    """The inputs with these values somewhere: one in ``planted_row``, further ones in the samples behind it."""
    x, n = host().xp.array(rig.x), len(rig.x)
    for i, value in enumerate(values, start=planted_row(rig)):
        row = host().xp.reshape(x[i % n : i % n + 1], (-1,))  # a view
        row[int(len(row) * host().uniform(seed, f"planted {i}", (1,))[0])] = value
    return x


def planted_row(rig: Rig) -> int:
    """One between others."""
    return len(rig.x) // 2


def _draws(plant: tuple[float, ...]) -> int:
    """Fewer where it matters what is finite: the large values dominate the budget."""
    return 2 if plant else DRAWS


def _reference(case: LayerCase, inputs: str, seed: int, dtype: str = "float64") -> Rig:
    return Rig(case, open_device("reference"), dtype, seed, inputs=inputs)


@lru_cache(maxsize=512)
def output_truth(case: LayerCase, dtype: str, precision: str, seed: int, plant: tuple[float, ...] = ()) -> Truth:
    """The output by the spec's formula."""
    rig = _reference(case, dtype, seed)
    formula = case.spec.reference
    assert formula is not None

    def compute(arrays: Arrays) -> Arrays:
        weights = {name.removeprefix(rig.prefix): arrays[name] for name in rig.drawn}
        with host().scope():
            return {OUTPUT: host().asarray(formula(arrays["x"], weights), "float64")}

    x = planted(rig, plant, seed)
    terms = 1 if case.spec.maps else rig.terms
    return allowed(compute, {"x": x, **rig.drawn}, size(terms, precision), seed=seed, draws=_draws(plant))


@lru_cache(maxsize=512)
def step_truth(case: LayerCase, dtype: str, precision: str, seed: int, plant: tuple[float, ...] = ()) -> Truth:
    """Output, gradients and parameters after a step, by the reference device."""
    rig, single = (_reference(case, dtype, seed, of) for of in ("float64", "float32"))
    states = {s.name: host().xp.array(s.value) for s in rig.model.states()}

    def compute_with(rig: Rig) -> Compute:
        def compute(arrays: Arrays) -> Arrays:
            rig.x, rig.dy = arrays["x"], arrays["dy"]
            rig.model.set_weights({name: arrays[name] for name in rig.drawn} | states)
            return rig.step()

        return compute

    x = planted(rig, plant, seed)
    inputs = {"x": x, "dy": rig.dy, **rig.drawn}
    within = size(rig.terms, precision)
    return allowed(compute_with(rig), inputs, within, single=compute_with(single), seed=seed, draws=_draws(plant))
