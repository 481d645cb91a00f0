"""The table that model.summary() prints."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpunet.layer import Layer, batched
from gpunet.parameter import BYTES, Parameter
from gpunet.pointwise import Group

if TYPE_CHECKING:
    from gpunet.layers.sequential import Sequential


def summary_text(model: Sequential) -> str:
    """One line a layer, then totals, then what a step runs."""
    rows = [("layer", "output", "parameters")]
    seen: set[Parameter] = set()
    for i, layer in enumerate(model.layers):
        assert layer.built is not None  # of a built model
        own = [p for p in dict.fromkeys(layer.parameters()) if p not in seen]
        seen.update(own)
        count = f"{sum(p.size for p in own):,}" if own else "shared" if layer.parameters() else ""
        label = f"{layer.name or i}: {type(layer).__name__}" if "\n" in repr(layer) else f"{layer.name or i}: {layer!r}"
        rows.append((label, batched(layer.built[1]), count))
    widths = [max(len(row[c]) for row in rows) for c in range(3)]
    lines = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in rows]
    lines.insert(1, "-" * len(lines[0]))

    stored, total = model.store.dtype, sum(p.size for p in seen)
    computed = "" if model.dtype == stored else f", computed in {model.dtype}"
    frozen = sum(p.size for p in seen if not p.trainable)
    lines += [
        lines[1],
        f"{total:,} parameters, {total * BYTES[stored]:,} bytes of {stored} on {model.backend.name}{computed}",
    ]
    if frozen:
        lines.append(f"{frozen:,} of them frozen")
    lines.append(f"runs as: {' | '.join(_runs_as(part) for part in model.chain().run)}")
    return "\n".join(lines)


def _runs_as(part: Layer) -> str:
    if isinstance(part, Group):
        return " + ".join(type(layer).__name__ for layer in part.layers)
    return type(part).__name__
