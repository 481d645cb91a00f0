"""How far whole runs drift apart: digits for 20 epochs on all devices at hand; python benchmarks/drift.py [--json FILE]

The same seeds, shuffling and dropout masks everywhere, so only rounding differs. Drift is max|w - v| / max|v| over all
weights, the worst tensor counts; v are those of the reference in float64. Float64 runs must stay within 1e-9: status 1
if one does not. Float32 runs are shown: a rounding grows from step to step, and a ReLU that flips changes its unit's
whole gradient, so they part from float64 and from each other; the accuracy tells whether that matters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from environment import write

import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.errors import DeviceError
from gpunet.train.callbacks import Callback

EPOCHS, BATCH = 20, 64
LIMIT = 1e-9


class Snapshots(Callback):
    """The weights after each epoch."""

    def __init__(self) -> None:
        self.weights: list[dict[str, np.ndarray]] = []

    def on_epoch(self, run, record):
        self.weights.append(run.step.model.get_weights())


def train(device: str, dtype: str, epochs: int) -> tuple[list[dict[str, np.ndarray]], float]:
    """-> the weights after each epoch, and the test accuracy."""
    (x, y), (x_test, y_test) = gn.datasets.digits()
    model = layers.Sequential(layers.Dense(32), layers.ReLU(), layers.Dropout(0.2), layers.Dense(10))
    model.build((64,), device=device, dtype=dtype, seed=0)
    snapshots = Snapshots()
    trainer = gn.Trainer(model, losses.CrossEntropy(), optim.Adam(5e-3), metrics=["accuracy"], seed=0)
    trainer.fit(x, y, epochs=epochs, batch_size=BATCH, callbacks=[snapshots], verbose=0)
    return snapshots.weights, trainer.evaluate(x_test, y_test)["accuracy"]


def drift(weights: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> float:
    """The worst tensor's."""
    return max(float(np.abs(w - truth[name]).max() / np.abs(truth[name]).max()) for name, w in weights.items())


def main() -> int:
    parser = argparse.ArgumentParser(description="How far whole runs drift apart.")
    parser.add_argument("--devices", default="reference,cpu,torch,array_api_strict,cuda")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--json", type=Path, help="write the curves there, too")
    options = parser.parse_args()
    truth, _ = train("reference", "float64", options.epochs)
    shown = sorted({epoch for epoch in (1, 2, 5, 10, 15, 20) if epoch <= options.epochs} | {options.epochs})
    print(f"{'device':18} {'dtype':8} " + " ".join(f"{f'epoch {epoch}':>9}" for epoch in shown) + "  accuracy")
    curves, failed = [], False
    for dtype in ("float64", "float32"):
        for device in options.devices.split(","):
            try:
                detail = getattr(gn.device(device), "detail", device)
            except DeviceError as error:
                print(f"{device:18} {dtype:8} not run: {error}")
                continue
            weights, accuracy = train(device, dtype, options.epochs)
            values = [drift(w, v) for w, v in zip(weights, truth, strict=True)]
            failed |= dtype == "float64" and max(values) > LIMIT
            numbers = " ".join(f"{values[epoch - 1]:9.1e}" for epoch in shown)
            print(f"{device:18} {dtype:8} {numbers}    {accuracy:.4f}", flush=True)
            curves.append(
                {"device": device, "detail": detail, "dtype": dtype, "drift": values, "test_accuracy": accuracy}
            )
    write(options, curves)
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
