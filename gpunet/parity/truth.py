"""What float64 says of the same run, and how far results of the device's precision may lie from that."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

from gpunet.backend import Backend, Shape, host
from gpunet.backend import device as open_device
from gpunet.formula import dtype_kind
from gpunet.layers.sequential import Sequential
from gpunet.parameter import MIXED
from gpunet.parity.budgets import EPS, allowed, roundings, terms
from gpunet.parity.case import Arrays, Case
from gpunet.parity.measure import layer_by_layer, part
from gpunet.train.step import TrainStep

Judged = tuple[Arrays, dict[str, float]]
"""Results in float64; for each the largest error that is allowed."""


class Truth:
    """The reference backend in float64, given what one device computed.

    precision  "float32", "tf32", …: that of the products, which is the coarsest one in a step
    """

    def __init__(self, case: Case, given: Arrays, precision: str):
        self.case, self.given = case, given
        self.backend = open_device("reference")
        self.eps, self.eps_update = EPS[precision], EPS["float64" if case.dtype == "float64" else "float32"]
        model = case.model(self.backend, dtype="float64")
        shapes = [case.batches[0][0].shape, *(given[f"layers/{n}/output"].shape for n in range(len(model.layers)))]
        self.sizes = [self.eps * roundings(terms(x, y)) for x, y in pairwise(shapes)]
        self.size = max(self.sizes, default=self.eps * roundings(1))

    def layers(self) -> Judged:
        """Each layer by itself."""
        model = self.case.model(self.backend, dtype="float64")
        given = {f"layers/{name}": self.given[f"layers/{name}"] for name in self._between()}
        inputs = {f"weight/{name}": w for name, w in self.case.weights.items()}
        inputs |= given | {f"batch/{n}": a for n, a in enumerate(self.case.batches[0])}
        half = self.case.dtype == "mixed_float16"

        def compute(arrays: Arrays) -> Arrays:
            model.set_weights(part(arrays, "weight/"))
            batch = tuple(arrays[f"batch/{n}"] for n in range(len(self.case.batches[0])))
            return layer_by_layer(model, self.case.new_loss(), batch, seed=self.case.seed, given=arrays, half=half)

        results, limits = allowed(compute, inputs, self._size_of(model))
        return _named("layers/", results, limits)

    def _size_of(self, model: Sequential) -> Callable[[str], float]:
        """How much an input or a result may be changed, by the layer that it belongs to."""
        owners = {p.name: n for n, layer in enumerate(model.layers) for p in layer.parameters()}

        def size(name: str) -> float:
            name = name.removeprefix("layers/")
            kind, _, rest = name.partition("/")
            if kind in ("weight", "gradient"):
                return self.sizes[owners[rest]] if rest in owners else self.size
            if not kind.isdecimal():
                return self.size
            number = int(kind)
            users = number, number + (1 if rest == "output" else -1)  # as an input it is that of the next one
            return max(self.sizes[n] for n in users if 0 <= n < len(self.sizes))

        return size

    def step(self, when: str) -> Judged:
        """Loss, gradients and states of the first or the last step; roundings come between the layers, too."""
        number = 0 if when == "first" else len(self.case.batches) - 1
        weights = self.case.weights if when == "first" else part(self.given, "before/weight/")
        batch = self.case.batches[number]
        model = self.case.model(self.backend, dtype="float64")
        inputs = {f"weight/{name}": w for name, w in weights.items()}
        inputs |= {f"batch/{n}": a for n, a in enumerate(batch)}
        inputs |= {f"factor/{n}": host().xp.ones(self._shape(n, len(batch[0]))) for n in self._between()}

        def compute(arrays: Arrays) -> Arrays:
            model.set_weights(part(arrays, "weight/"))
            given, factors = tuple(arrays[f"batch/{n}"] for n in range(len(batch))), part(arrays, "factor/")
            found = layer_by_layer(
                model, self.case.new_loss(), given, seed=self.case.seed, step=number, factors=factors
            )
            states = {s.name for s in model.states()}
            kept = {f"weight/{name}": w for name, w in model.get_weights().items() if name in states}
            return {n: a for n, a in found.items() if n == "loss" or n.startswith("gradient/")} | kept

        results, limits = allowed(compute, inputs, self.size)
        return _named(f"{when}/", results, limits)

    def _between(self) -> list[str]:
        """Names of what one layer gives to the next, forward and backward."""
        names = part(self.given, "layers/")
        return [name for name in names if name.endswith(("/output", "/input gradient", "loss gradient"))]

    def _shape(self, name: str, samples: int) -> Shape:
        """Of what stands between layers, for so many samples."""
        return (samples, *self.given[f"layers/{name}"].shape[1:])

    def update(self, when: str, own: Arrays) -> Judged:
        """What the optimizer makes of a device's own gradients."""
        number = 0 if when == "first" else len(self.case.batches) - 1
        model = self.case.model(self.backend, dtype="float64")
        optimizer = self.case.new_optimizer()
        with self.backend.scope():
            optimizer.prepare(model)
        names = [p.name for p in model.store.parameters if p.trainable]
        before = part(self.given, "before/") if when == "last" else {}
        weights = self.case.weights if when == "first" else part(before, "weight/")
        slots = optimizer.get_state() if when == "first" else part(before, "slot/")
        inputs = {f"weight/{n}": weights[n] for n in names}
        inputs |= {f"gradient/{n}": own[f"{when}/gradient/{n}"] for n in names}
        inputs |= {f"slot/{n}": a for n, a in slots.items() if n != "t"}

        def compute(arrays: Arrays) -> Arrays:
            model.set_weights(part(arrays, "weight/"))
            optimizer.set_state(part(arrays, "slot/") | {"t": slots["t"]})
            optimizer.updates = number
            with self.backend.scope():
                model.store.begin()
                for p in model.store.trainable:
                    p.add_grad(self.backend.asarray(_wide(arrays[f"gradient/{p.name}"])))
                optimizer.update(model)
            found = {f"weight/{name}": w for name, w in model.get_weights().items() if name in names}
            return found | {f"slot/{name}": a for name, a in optimizer.get_state().items()}

        results, limits = allowed(compute, inputs, self.eps_update * roundings(1))
        return _named(f"{when}/", results, limits)

    def run(self) -> Judged:
        """Losses of all steps and the weights at the end."""
        inputs = {f"weight/{name}": w for name, w in self.case.weights.items()}
        inputs |= {f"batch/{i}/{n}": a for i, batch in enumerate(self.case.batches) for n, a in enumerate(batch)}

        def compute(arrays: Arrays) -> Arrays:
            model = self.case.model(self.backend, dtype="float64")
            model.set_weights(part(arrays, "weight/"))
            step = TrainStep(model, self.case.new_loss(), self.case.new_optimizer(), seed=self.case.seed)
            losses = []
            for i, batch in enumerate(self.case.batches):
                losses.append(float(step(*(_wide(arrays[f"batch/{i}/{n}"]) for n in range(len(batch))))))
            found = {f"end/weight/{name}": w for name, w in model.get_weights().items()}
            return found | {"losses": host().xp.asarray(losses)}

        return allowed(compute, inputs, self.size)


def precision(case: Case, *backends: Backend) -> str:
    """The coarsest in which one of these devices computes."""
    compute = MIXED.get(case.dtype, case.dtype)
    return "tf32" if compute == "float32" and any(getattr(one, "tf32", False) for one in backends) else compute


def _wide(array: Any) -> Any:
    return host().asarray(array, "float64") if dtype_kind(array.dtype) == "float" else array


def _named(start: str, results: Arrays, limits: dict[str, float]) -> Judged:
    return {start + n: a for n, a in results.items()}, {start + n: limit for n, limit in limits.items()}
