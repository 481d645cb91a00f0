"""Two devices' results against float64: the rows of a report."""

from __future__ import annotations

import math
from typing import Any

from gpunet.backend import host
from gpunet.parity.budgets import EPS, distance, largest
from gpunet.parity.case import Arrays, Case
from gpunet.parity.measure import judged_steps
from gpunet.parity.report import Row
from gpunet.parity.truth import Judged, Truth

WRITTEN = "elements of its input, or of the gradient of its output, that it changed"
OF_LAYERS = {
    "output": "output",
    "prediction": "output outside training",
    "input gradient": "gradient of the input",
    "inputs changed": WRITTEN,
}
OF_STEPS = {"loss": "value", "loss gradient": "gradient of the prediction"}
STAGES = {"layers": "layer", "first": "first step", "third": "third step", "last": "last step"}
MOST = 1e4
"""Ulps that a budget has at most: a tensor that is 0 but for rounding is measured by its budget instead of itself."""


class Judge:
    """Makes rows.

    devices    names
    results    what each computed; the second with the first one's as given
    """

    def __init__(self, case: Case, devices: tuple[str, str], results: tuple[Arrays, Arrays], precision: str):
        self.case, self.devices, self.results = case, devices, results
        self.eps = EPS[precision]
        self.truth = Truth(case, results[0], precision)
        layers = case.model(host()).layers
        self.titles = [layer.title for layer in layers]
        self.owners = {p.name: layer.title for layer in layers for p in layer.parameters()}
        self.owners |= {state.name: layer.title for layer in layers for state in layer.states()}

    def rows(self) -> tuple[list[Row], list[float]]:
        """-> the rows in order of computation, and the losses in float64."""
        rows = self._sorted(self._rows(self.truth.layers()))
        for number, name in judged_steps(len(self.case.batches)).items():
            skipped = self._skipped(name)
            found = self._rows(self.truth.step(number, name))
            rows += [row for row in found if not skipped or row.tensor in ("value", "output")]
            if not skipped:
                rows += self._updates(number, name)
        run = self.truth.run()
        rows += self._rows(run, judged=self.case.dtype == "float64")
        return rows, [float(loss) for loss in run[0]["losses"]]

    def _rows(self, truth: Judged, *, judged: bool = True) -> list[Row]:
        expected, limits = truth
        rows = []
        for name, a in expected.items():
            if name.endswith("inputs changed"):  # no layer may, whatever the reference device does
                a, limits[name] = 0 * a, 0.0
            rows.append(self._row(name, (a, a), (limits[name],) * 2, self.eps, judged))
        return [row for row in rows if row.tensor != WRITTEN or row.bad]

    def _skipped(self, name: str) -> bool:
        """Gradients overflowed in float16: training leaves such a step out, with a smaller scale next time."""
        if self.case.dtype != "mixed_float16":
            return False
        start = f"{name}/gradient/"
        gradients = [a for own in self.results for key, a in own.items() if key.startswith(start)]
        return not all(bool(host().xp.isfinite(a).all()) for a in gradients)

    def _updates(self, number: int, name: str) -> list[Row]:
        """Each device's weights and buffers against the update by its own gradients."""
        (a, limits_a), (b, limits_b) = (self.truth.update(number, name, own) for own in self.results)
        eps = self.truth.eps_update
        return [self._row(key, (a[key], b[key]), (limits_a[key], limits_b[key]), eps) for key in a]

    def _row(
        self, name: str, expected: tuple[Any, Any], limits: tuple[float, float], eps: float, judged: bool = True
    ) -> Row:
        one, two = (own[name] for own in self.results)
        finite = [limit for limit in limits if math.isfinite(limit)]
        ulp = max(eps * largest(expected[0]), *(limit / MOST for limit in finite), 1e-300) if finite else 1.0
        stage, layer, tensor = self._words(name)
        if tensor == WRITTEN:
            ulp = 1.0  # they are counted
        errors = tuple(distance(own, right) / ulp for own, right in zip((one, two), expected, strict=True))
        budgets = [limit / ulp for limit in limits]
        past = [
            device
            for device, error, budget in zip(self.devices, errors, budgets, strict=True)
            if not error <= budget and not math.isinf(budget)
        ]
        row = stage, layer, tensor, distance(one, two) / ulp, (errors[0], errors[1]), max(budgets)
        return Row(*row, judged=judged, past=tuple(past))

    def _words(self, name: str) -> tuple[str, str, str]:
        """Stage, layer and tensor of a result's name."""
        start, _, rest = name.partition("/")
        stage = STAGES.get(start, "run")
        kind, _, of = rest.partition("/")
        if kind.isdecimal():
            return stage, self.titles[int(kind)], OF_LAYERS[of]
        if kind == "slot":
            slot, _, parameter = of.partition("/")
            what = f"{slot} of '{parameter}'" if parameter else "number of updates"
            return stage, type(self.case.optimizer).__name__, what
        if kind in ("gradient", "weight"):
            return stage, self.owners[of], f"gradient of '{of}'" if kind == "gradient" else f"'{of}'"
        if rest in OF_LAYERS:
            return stage, "all layers", OF_LAYERS[rest]
        return stage, type(self.case.loss).__name__, OF_STEPS[rest] if rest else "losses"

    def _sorted(self, rows: list[Row]) -> list[Row]:
        """Rows of layers: gradients of parameters behind that of their layer's input."""
        places = {row.layer: i for i, row in enumerate(rows) if row.tensor == "gradient of the input"}

        def place(numbered: tuple[int, Row]) -> tuple[int, int]:
            number, row = numbered
            of_parameter = row.tensor.startswith("gradient of '")
            return (places.get(row.layer, len(rows)), 1) if of_parameter else (number, 0)

        return [row for _, row in sorted(enumerate(rows), key=place)]
