"""Two devices' results against float64: the rows of a report."""

from __future__ import annotations

import math
from typing import Any

from gpunet.backend import host
from gpunet.parity.budgets import EPS, distance, largest
from gpunet.parity.case import Arrays, Case
from gpunet.parity.report import Row
from gpunet.parity.truth import Judged, Truth

WRITTEN = "input, or gradient of the output, that was written in place"
TENSORS = {"output": "output", "input gradient": "gradient of the input", "inputs changed": WRITTEN}
STAGES = {"layers": "layer", "first": "first step", "last": "last step", "end": "run", "losses": "run"}


class Judge:
    """Makes rows.

    devices    names
    results    what each computed; the second with the first one's as given
    """

    def __init__(self, case: Case, devices: tuple[str, str], results: tuple[Arrays, Arrays], precision: str):
        self.case, self.devices, self.results = case, devices, results
        self.eps = EPS[precision]
        self.truth = Truth(case, results[0], precision)
        self.judge_run = case.dtype == "float64"  # float32 runs drift apart: a rounding grows from step to step
        layers = case.model(host()).layers
        self.titles = [layer.title for layer in layers]
        self.owners = {p.name: layer.title for layer in layers for p in layer.parameters()}
        self.owners |= {state.name: layer.title for layer in layers for state in layer.states()}

    def rows(self) -> tuple[list[Row], list[float]]:
        """-> the rows in order of computation, and the losses in float64."""
        rows = self._sorted(self._rows(self.truth.layers()))
        for when in ("first", "last")[: min(2, len(self.case.batches))]:
            rows += self._rows(self.truth.step(when))
            rows += self._updates(when)
        run = self.truth.run()
        rows += self._rows(run, judged=self.judge_run)
        return rows, [float(loss) for loss in run[0]["losses"]]

    def _rows(self, judged_by: Judged, *, judged: bool = True) -> list[Row]:
        expected, limits = judged_by
        rows = [self._row(name, (expected[name],) * 2, (limits[name],) * 2, self.eps, judged) for name in expected]
        return [row for row in rows if row.tensor != WRITTEN or row.bad]

    def _updates(self, when: str) -> list[Row]:
        """Each device's weights and buffers against the update by its own gradients."""
        finite = all(
            bool(host().xp.isfinite(a).all())
            for own in self.results
            for name, a in own.items()
            if name.startswith(f"{when}/gradient/")
        )
        if not finite:  # their rows say so; with float16 the step was skipped
            return []
        (a, limits_a), (b, limits_b) = (self.truth.update(when, own) for own in self.results)
        eps = self.truth.eps_update
        return [self._row(name, (a[name], b[name]), (limits_a[name], limits_b[name]), eps) for name in a]

    def _row(
        self, name: str, expected: tuple[Any, Any], limits: tuple[float, float], eps: float, judged: bool = True
    ) -> Row:
        one, two = (own[name] for own in self.results)
        ulp = eps * max(largest(expected[0]), 1e-300)
        errors = tuple(distance(own, right) / ulp for own, right in zip((one, two), expected, strict=True))
        budgets = [limit / ulp for limit in limits]
        bad = []
        for device, error, budget in zip(self.devices, errors, budgets, strict=True):
            if math.isinf(error) or (judged and error > budget):
                bad.append(device)
        stage, layer, tensor = self._words(name)
        limit = max(budgets) if judged else None
        return Row(stage, layer, tensor, distance(one, two) / ulp, (errors[0], errors[1]), limit, tuple(bad))

    def _words(self, name: str) -> tuple[str, str, str]:
        """Stage, layer and tensor of a result's name."""
        start, _, rest = name.partition("/")
        stage = STAGES[start]
        kind, _, of = rest.partition("/")
        if kind.isdecimal():
            return stage, self.titles[int(kind)], TENSORS[of]
        if kind == "slot":
            slot, _, parameter = of.partition("/")
            what = f"{slot} of '{parameter}'" if parameter else "number of updates"
            return stage, type(self.case.optimizer).__name__, what
        if kind in ("gradient", "weight"):
            return stage, self.owners[of], f"gradient of '{of}'" if kind == "gradient" else f"'{of}'"
        what = {"loss gradient": "gradient of the prediction"}.get(rest, "losses" if not rest else "value")
        return stage, type(self.case.loss).__name__, what

    def _sorted(self, rows: list[Row]) -> list[Row]:
        """Rows of layers: gradients of parameters behind that of their layer's input."""
        places = {row.layer: i for i, row in enumerate(rows) if row.tensor == "gradient of the input"}

        def place(numbered: tuple[int, Row]) -> tuple[int, int]:
            number, row = numbered
            of_parameter = row.tensor.startswith("gradient of '")
            return (places.get(row.layer, len(rows)), 1) if of_parameter else (number, 0)

        return [row for _, row in sorted(enumerate(rows), key=place)]
