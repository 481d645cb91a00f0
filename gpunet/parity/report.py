"""Report: where and by how much two devices differ."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Row:
    """One tensor. Errors are in ulps: eps of the precision times the largest magnitude of the tensor in float64.

    stage       "layer": by itself, with the other device's inputs; "first step", "last step": all layers together,
                the last one from where the other device stood; "run": all steps, each device by itself
    layer       its class and name; that of the loss or the optimizer
    tensor      such as "output", "gradient of '0.weight'"
    difference  between the two devices
    errors      of each device against float64
    budget      the largest error that is allowed; None: shown, not judged
    bad         the devices that are past it
    """

    stage: str
    layer: str
    tensor: str
    difference: float
    errors: tuple[float, float]
    budget: float | None
    bad: tuple[str, ...] = ()

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
        """Is every tensor within its budget?"""
        return self.first is None

    @property
    def first(self) -> Row | None:
        """The first tensor past its budget, in the order in which they are computed."""
        return next((row for row in self.rows if row.bad), None)

    @property
    def verdict(self) -> str:
        """One line: they agree, or what is off first, where and by how much."""
        a, b = self.devices
        first = self.first
        if first is None:
            worst = max((row for row in self.rows if row.budget), key=_used, default=None)
            most = "" if worst is None else f"; the most of a budget: {_used(worst):.0%}, {worst}"
            return f"{a} and {b} agree: {len(self.rows)} tensors{most}"
        errors = dict(zip(self.devices, first.errors, strict=True))
        off = " and ".join(f"{name} by {errors[name]:.3g}" for name in first.bad)
        hint = ""
        if first.stage != "layer" and not any(row.bad for row in self.rows if row.stage == "layer"):
            hint = ". Each layer by itself agrees: look at what runs them together, the loss or the optimizer"
        more = sum(bool(row.bad) for row in self.rows) - 1
        return (
            f"{first}: off by more than {first.budget:.3g} ulps of its largest magnitude: {off}{hint}"
            f"{f'; {more} more' if more else ''}"
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON; what is not finite as words."""
        rows = [asdict(row) | {"ok": not row.bad} for row in self.rows]
        found = {"ok": self.ok, "verdict": self.verdict, "devices": self.devices, "precision": self.precision}
        plain: dict[str, Any] = _plain(
            found | {"environment": self.environment, "losses": self.losses, "tensors": rows}
        )
        return plain

    def to_json(self) -> str:
        """The same as text."""
        return json.dumps(self.to_dict(), indent=1)

    def __str__(self) -> str:
        """A table of all tensors, the losses side by side, and the verdict."""
        a, b = self.devices
        heads = ("", "layer", "tensor", "difference", a, b, "budget")
        lines = [heads, *(_cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(heads))]
        table = "\n".join(
            "  ".join(
                cell.ljust(w) if i < 3 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        )
        return f"{table}\n\n{self.curves()}\n\n{self.verdict}"

    def curves(self) -> str:
        """The losses of some steps side by side."""
        names = list(self.losses)
        count = len(self.losses[names[0]])
        shown = sorted({round(i * (count - 1) / 9) for i in range(10)})
        lines = ["loss    " + "  ".join(name.rjust(14) for name in names)]
        lines += [f"{i + 1:<8}" + "  ".join(f"{self.losses[name][i]:14.8g}" for name in names) for i in shown]
        return "\n".join(lines)


def _used(row: Row) -> float:
    return max(row.errors) / row.budget if row.budget else 0.0


def _cells(row: Row) -> tuple[str, ...]:
    numbers = [row.difference, *row.errors]
    budget = "shown" if row.budget is None else f"{row.budget:.3g}"
    mark = f"  OFF: {', '.join(row.bad)}" if row.bad else ""
    return (row.stage, row.layer, row.tensor, *(f"{n:.3g}" for n in numbers), budget + mark)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
