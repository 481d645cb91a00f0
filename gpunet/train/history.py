"""History: what happened in each epoch."""

from __future__ import annotations


class History:
    """One record an epoch: ``history["loss"]`` is a list over epochs, ``history.epochs`` the records."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, float]] = []

    def append(self, record: dict[str, float]) -> None:
        """Add an epoch."""
        self.epochs.append(record)

    def to_dict(self) -> dict[str, list[float]]:
        """Lists over the epochs, by name."""
        return {name: self[name] for name in dict.fromkeys(n for record in self.epochs for n in record)}

    def __getitem__(self, name: str) -> list[float]:
        if not any(name in record for record in self.epochs):
            known = sorted({n for record in self.epochs for n in record})
            raise KeyError(f"no '{name}' was recorded. Recorded: {', '.join(known)}")
        return [record[name] for record in self.epochs if name in record]

    def __len__(self) -> int:
        return len(self.epochs)

    def __repr__(self) -> str:
        last = ", ".join(f"{k}={v:.4g}" for k, v in self.epochs[-1].items()) if self.epochs else ""
        return f"History({len(self.epochs)} epochs{': ' + last if last else ''})"
