"""What float64 says of the same run, and how far results of the device's precision may lie from that."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

from gpunet.backend import Backend, Shape, host
from gpunet.backend import device as open_device
from gpunet.formula import dtype_kind
from gpunet.layers.sequential import Sequential
from gpunet.parameter import MIXED
from gpunet.parity.budgets import DRAWS, EPS, STORED, Compute, allowed, largest, lost, roundings, terms
from gpunet.parity.case import Arrays, Case
from gpunet.parity.measure import layer_by_layer, part
from gpunet.train.step import TrainStep

Judged = tuple[Arrays, dict[str, float]]
"""Results in float64; for each the largest error that is allowed."""
TIMES, OF_RUN, OF_SINGLE = 4.0, 1e-9, 1e-5
"""A float64 run may end so many times its budget away, or so far relative to the tensor, or to what float32 loses."""
LOST_RUN = 0.01
"""Of a tensor's size: where float32 ends so far from float64, the run hangs on roundings, and nothing is judged."""


class Truth:
    """The reference device in float64, given what one device computed.

    precision  "float32", "tf32", …: that of the products, which is the coarsest one in a step
    """

    def __init__(self, case: Case, given: Arrays, precision: str):
        self.case, self.given, self.eps = case, given, EPS[precision]
        self.backend = open_device("reference")
        self.eps_update = EPS["float64" if case.dtype == "float64" else "float32"]
        self.half = case.dtype in MIXED
        self.count = len(self._model("float64").layers)

    def _model(self, dtype: str) -> Sequential:
        return self.case.model(self.backend, dtype=dtype)

    def _sizes(self, samples: int) -> list[float]:
        """For each layer, how much what goes in may be changed: roundings of its longest sum."""
        names = [f"layers/{n}/output" for n in range(self.count)]
        shapes = [self.case.batches[0][0].shape, *(self.given[name].shape for name in names)]
        sums = [roundings(terms((samples, *x[1:]), (samples, *y[1:]))) for x, y in pairwise(shapes)]
        return [self.eps * r for r in sums] or [self.eps * roundings(samples)]

    def layers(self) -> Judged:
        """Each layer by itself."""
        batch = self.case.batches[0]
        inputs = {f"layers/{name}": self.given[f"layers/{name}"] for name in self._between()}
        inputs |= {f"weight/{name}": w for name, w in self.case.weights.items()}
        inputs |= {f"batch/{n}": a for n, a in enumerate(batch)}

        def compute_with(dtype: str) -> Compute:
            model = self._model(dtype)

            def compute(arrays: Arrays) -> Arrays:
                model.set_weights(part(arrays, "weight/"))
                given = tuple(arrays[f"batch/{n}"] for n in range(len(batch)))
                half = self.case.dtype == "mixed_float16"
                return layer_by_layer(model, self.case.new_loss(), given, seed=self.case.seed, given=arrays, half=half)

            return compute

        size = self._size_of(self._model("float64"), self._sizes(len(batch[0])))
        results, limits = allowed(compute_with("float64"), inputs, size, single=compute_with("float32"))
        return _named("layers/", results, limits)

    def _size_of(self, model: Sequential, sizes: list[float]) -> Callable[[str], float]:
        """How much an input or a result of a layer may be changed, by the layer that it belongs to."""
        loss = max(sizes) / self.eps * self.eps_update  # which is float32, or float64
        if self.half:  # what is stored is rounded to half precision, sums are not
            sizes = [STORED * self.eps + size / self.eps * self.eps_update for size in sizes]
        owners = {p.name: n for n, layer in enumerate(model.layers) for p in layer.parameters()}
        whole = max(sizes)

        def size(name: str) -> float:
            name = name.removeprefix("layers/")
            kind, _, rest = name.partition("/")
            if kind in ("weight", "gradient"):
                return sizes[owners[rest]] if rest in owners else whole
            if name == "loss":
                return loss
            if not kind.isdecimal():
                return whole
            number = int(kind)
            users = number, number + (-1 if rest == "input gradient" else 1)  # as an input it is another one's
            return max(sizes[n] for n in users if 0 <= n < len(sizes))

        return size

    def step(self, number: int, name: str) -> Judged:
        """Loss, gradients and states of a step; roundings come between the layers, too.

        name  of the step; its weights are those before it
        """
        weights = self._before(number, name)[0]
        batch = self.case.batches[number]
        inputs = {f"weight/{name}": w for name, w in weights.items()}
        inputs |= {f"batch/{n}": a for n, a in enumerate(batch)}
        inputs |= {f"factor/{n}": host().xp.ones(self._shape(n, len(batch[0]))) for n in self._between()}

        def compute_with(dtype: str) -> Compute:
            model = self._model(dtype)
            states = {s.name for s in model.states()}

            def compute(arrays: Arrays) -> Arrays:
                model.set_weights(part(arrays, "weight/"))
                given = tuple(arrays[f"batch/{n}"] for n in range(len(batch)))
                found = layer_by_layer(
                    model,
                    self.case.new_loss(),
                    given,
                    seed=self.case.seed,
                    step=number,
                    factors=part(arrays, "factor/"),
                )
                kept = {f"weight/{name}": w for name, w in model.get_weights().items() if name in states}
                shown = {"output": f"{self.count - 1}/output"}
                if self.case.dtype != "mixed_float16":  # see measure.merged
                    shown["input gradient"] = "0/input gradient"
                kept |= {name: found[key] for name, key in shown.items() if key in found}
                return {n: a for n, a in found.items() if n == "loss" or n.startswith("gradient/")} | kept

            return compute

        size = max(self._sizes(len(batch[0])))
        results, limits = allowed(compute_with("float64"), inputs, size, single=compute_with("float32"))
        return _named(f"{name}/", results, limits)

    def update(self, number: int, name: str, own: Arrays) -> Judged:
        """What the optimizer makes of a device's own gradients."""
        trained = [p.name for p in self._model("float64").store.parameters if p.trainable]
        weights, slots = self._before(number, name)
        inputs = {f"weight/{n}": weights[n] for n in trained}
        inputs |= {f"gradient/{n}": own[f"{name}/gradient/{n}"] for n in trained}
        inputs |= {f"slot/{n}": a for n, a in slots.items() if n != "t"}

        def compute_with(dtype: str) -> Compute:
            model, optimizer = self._model(dtype), self.case.new_optimizer()
            with self.backend.scope():
                optimizer.prepare(model)
            none = optimizer.get_state()  # as it is before the first step

            def compute(arrays: Arrays) -> Arrays:
                model.set_weights(part(arrays, "weight/"))
                optimizer.set_state(part(arrays, "slot/") | {"t": slots["t"]} if slots else none)
                optimizer.updates = number
                with self.backend.scope():
                    model.store.begin()
                    for p in model.store.trainable:
                        p.add_grad(self.backend.asarray(host().asarray(arrays[f"gradient/{p.name}"], dtype)))
                    optimizer.update(model)
                found = {f"weight/{n}": w for n, w in model.get_weights().items() if n in trained}
                return found | {f"slot/{n}": a for n, a in optimizer.get_state().items()}

            return compute

        size = self.eps_update * roundings(1)
        results, limits = allowed(compute_with("float64"), inputs, size, single=compute_with("float32"))
        return _named(f"{name}/", results, limits)

    def run(self) -> Judged:
        """Losses of all steps and the weights at the end."""
        inputs = {f"weight/{name}": w for name, w in self.case.weights.items()}
        inputs |= {f"batch/{i}/{n}": a for i, batch in enumerate(self.case.batches) for n, a in enumerate(batch)}

        def compute_with(dtype: str) -> Compute:
            def compute(arrays: Arrays) -> Arrays:
                model = self._model(dtype)
                model.set_weights(part(arrays, "weight/"))
                step = TrainStep(model, self.case.new_loss(), self.case.new_optimizer(), seed=self.case.seed)
                losses = []
                for i, batch in enumerate(self.case.batches):
                    given = [arrays[f"batch/{i}/{n}"] for n in range(len(batch))]
                    wide = [host().asarray(a, dtype) if dtype_kind(a.dtype) == "float" else a for a in given]
                    losses.append(float(step(*wide)))
                found = {f"end/weight/{name}": w for name, w in model.get_weights().items()}
                return found | {"losses": host().xp.asarray(losses)}

            return compute

        size = max(max(self._sizes(len(batch[0]))) for batch in self.case.batches)
        compute, single = compute_with("float64"), compute_with("float32")
        results, limits = allowed(compute, inputs, size, draws=DRAWS if self.case.dtype == "float64" else 2)
        drift = lost(compute, single, inputs, draws=1)
        for name, a in results.items():
            away = drift[name] * EPS["float32"]
            limits[name] *= TIMES
            if self.case.dtype == "float64":
                limits[name] = max(limits[name], OF_RUN * largest(a), OF_SINGLE * away)
            if not away < LOST_RUN * largest(a):
                limits[name] = math.inf
        return results, limits

    def _before(self, number: int, name: str) -> tuple[Arrays, Arrays]:
        """Weights and the optimizer's buffers before a step; no buffers before the first one."""
        if number == 0:
            return self.case.weights, {}
        before = part(self.given, f"{name}/before/")
        return part(before, "weight/"), part(before, "slot/")

    def _between(self) -> list[str]:
        """Names of what one layer gives to the next, forward and backward."""
        names = part(self.given, "layers/")
        return [name for name in names if name.endswith(("/output", "/input gradient", "loss gradient"))]

    def _shape(self, name: str, samples: int) -> Shape:
        """Of what stands between layers, for so many samples."""
        return (samples, *self.given[f"layers/{name}"].shape[1:])


def precision(case: Case, *backends: Backend) -> str:
    """The coarsest in which one of these devices computes."""
    compute = MIXED.get(case.dtype, case.dtype)
    return "tf32" if compute == "float32" and any(getattr(one, "tf32", False) for one in backends) else compute


def _named(start: str, results: Arrays, limits: dict[str, float]) -> Judged:
    return {start + n: a for n, a in results.items()}, {start + n: limit for n, limit in limits.items()}
