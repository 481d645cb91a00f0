"""Report: where and by how much two devices differ."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One tensor. Numbers are in ulps: eps of the precision times the largest magnitude of the tensor in float64.

    stage       "layer": by itself, with the other device's inputs; "first step", "third step", "last step": all layers
                together, from where the other device stood; "run": all steps, each device by itself
    layer       its class and name; that of the loss or the optimizer
    tensor      such as "output", "gradient of '0.weight'"
    difference  between the two devices: not judged
    errors      of each device against float64
    budget      the largest error that is allowed
    judged      False: shown only
    past        the devices that are past the budget
    """

    stage: str
    layer: str
    tensor: str
    difference: float
    errors: tuple[float, float]
    budget: float
    judged: bool = True
    past: tuple[str, ...] = ()

    @property
    def bad(self) -> tuple[str, ...]:
        """The devices that are off, if that is judged."""
        return self.past if self.judged else ()

    @property
    def used(self) -> float:
        """How much of the budget the worse device needs."""
        return max(self.errors) / self.budget if self.budget else 0.0

    def __str__(self) -> str:
        return f"{self.stage}: {self.layer}: {self.tensor}"


@dataclass(frozen=True)
class Report:
    """What two devices computed of the same run.

    devices      the two; of a recording, the first is the one that recorded
    precision    "float32", "tf32", …: of the ulps
    rows         in the order in which they are computed
    losses       of each step: of the two devices and in float64
    environment  of each device: what it is, versions, commit, date
    """

    devices: tuple[str, str]
    precision: str
    rows: tuple[Row, ...]
    losses: dict[str, list[float]]
    environment: tuple[dict[str, Any], dict[str, Any]] = field(default=({}, {}))

    @property
    def ok(self) -> bool:
        """Is every tensor that is judged within its budget?"""
        return self.first is None

    @property
    def first(self) -> Row | None:
        """The first tensor past its budget, in the order in which they are computed."""
        return next((row for row in self.rows if row.bad), None)

    @property
    def verdict(self) -> str:
        """One line: they agree, or what is off first, where and by how much."""
        first = self.first
        if first is None:
            worst = max((row for row in self.rows if row.judged), key=lambda row: row.used, default=None)
            most = "" if worst is None else f"; the most of a budget: {worst.used:.0%}, {worst}"
            return f"{self.devices[0]} and {self.devices[1]} agree: {len(self.rows)} tensors{most}{self._notes()}"
        errors = dict(zip(self.devices, first.errors, strict=True))
        off = " and ".join(f"{name} is {errors[name]:.3g} ulps off" for name in first.bad)
        more = sum(bool(row.bad) for row in self.rows) - 1
        counted = f"; {more} tensors more" if more else ""
        return f"{first}: {off}, {first.budget:.3g} are allowed{self._hint(first)}{counted}{self._notes()}"

    def _hint(self, first: Row) -> str:
        if len(first.bad) == 2 and first.difference <= first.budget:
            return ". Both are, alike: not a device, but numbers that this precision cannot hold, or the model"
        if first.stage != "layer":
            return ". Each layer by itself agrees: look at what runs them together, the loss, the optimizer or states"
        return ""

    def _notes(self) -> str:
        """What is not judged, and should be known."""
        notes = ""
        for name, losses in self.losses.items():
            if wrong := sum(not math.isfinite(loss) for loss in losses):
                notes += f". {wrong} of {len(losses)} losses of {name} are not finite"
        drifted = next((row for row in self.rows if row.past and not row.judged), None)
        if drifted is not None:
            notes += f". Not judged in {self.precision}: the runs part by more than rounding explains, {drifted}"
        return notes

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not finite as words."""
        found: dict[str, Any] = {"ok": self.ok, "verdict": self.verdict, "first": self.first and str(self.first)}
        found |= {"devices": self.devices, "precision": self.precision, "environment": self.environment}
        rows = [asdict(row) | {"ok": not row.bad} for row in self.rows]
        plain: dict[str, Any] = _plain(found | {"losses": self.losses, "rows": rows})
        return plain

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1)

    def __str__(self) -> str:
        """A table of all tensors, the losses side by side, and the verdict."""
        a, b = self.devices
        lines = [("stage", "layer", "tensor", "difference", a, b, "budget"), *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(7)]
        aligned = [
            [cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))]
            for line in lines
        ]
        table = "\n".join("  ".join(line).rstrip() for line in aligned)
        legend = (
            f"In ulps of {self.precision}: the difference of the two devices, the error of each against float64, and "
            "what errors are allowed."
        )
        return f"{legend}\n\n{table}\n\n{self.curves()}\n\n{self.verdict}"

    def curves(self) -> str:
        """The losses of some steps side by side."""
        names = list(self.losses)
        count = len(self.losses[names[0]])
        shown = sorted({round(i * (count - 1) / 9) for i in range(10)})
        width = max(14, *(len(name) for name in names))
        lines = ["loss    " + "  ".join(name.rjust(width) for name in names)]
        lines += [f"{i + 1:<8}" + "  ".join(f"{self.losses[name][i]:{width}.8g}" for name in names) for i in shown]
        return "\n".join(lines)


def _cells(row: Row) -> tuple[str, ...]:
    numbers = [f"{n:.3g}" for n in (row.difference, *row.errors, row.budget)]
    numbers[-1] += "" if row.judged else " (shown)"
    numbers[-1] += f"  OFF: {', '.join(row.bad)}" if row.bad else ""
    return (row.stage, row.layer, row.tensor, *numbers)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
