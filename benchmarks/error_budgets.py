"""How much of their error budgets healthy devices need: python benchmarks/error_budgets.py [--seeds 20] [--json FILE]

Layers of several widths with fresh random weights and inputs each time, in several precisions, on the devices at hand.
Every tensor's error against float64 is divided by its budget (gpunet.parity.budgets); 1.0 would be a false alarm, and
budgets of which only a hundredth is ever needed would be loose.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from environment import write

from gpunet import layers, losses, optim, parity

WIDTHS = (8, 64, 512, 2048)
NETWORKS = {
    "Dense": lambda n: [layers.Dense(n)],
    "Dense, ReLU": lambda n: [layers.Dense(n), layers.ReLU(), layers.Dense(n)],
    "Tanh, GELU, SiLU": lambda n: [layers.Tanh(), layers.GELU(), layers.SiLU(), layers.Mish()],
    "LayerNorm": lambda n: [layers.LayerNorm(), layers.Dense(8)],
    "RMSNorm": lambda n: [layers.RMSNorm(), layers.Dense(8)],
    "Dense, BatchNorm": lambda n: [layers.Dense(n), layers.BatchNorm(), layers.ReLU(), layers.Dense(8)],
    "BatchNorm": lambda n: [layers.BatchNorm(), layers.Dense(8)],
    "Softmax": lambda n: [layers.Softmax(), layers.Dense(8)],
    "Residual, Dropout": lambda n: [
        layers.Residual(layers.Dense(n), layers.Dropout(0.3), layers.Tanh(), layers.Dense(n))
    ],
}
LOSSES = {"CrossEntropy": losses.CrossEntropy, "MeanSquaredError": losses.MeanSquaredError}
OPTIMIZERS = [optim.SGD, optim.Adam, optim.AdamW, optim.Lion, optim.RMSprop, optim.NAdam]


def report(network: str, width: int, dtype: str, devices: tuple[str, str], seed: int, rows: int) -> parity.Report:
    """Three steps of a network of this width, fresh numbers for each seed."""
    rng = np.random.default_rng((seed, width))
    model = layers.Sequential(*NETWORKS[network](width)).build((width,), device="cpu", dtype=dtype, seed=seed)
    outputs = model.output_shape[0]
    loss = list(LOSSES)[seed % 2]
    batches = []
    for _ in range(3):
        x = rng.standard_normal((rows, width))
        y = rng.integers(0, outputs, rows) if loss == "CrossEntropy" else rng.standard_normal((rows, outputs))
        batches.append((x.astype(np.float32), y.astype(np.int32 if loss == "CrossEntropy" else np.float32)))
    optimizer = OPTIMIZERS[seed % len(OPTIMIZERS)](1e-2)
    return parity.compare(model, LOSSES[loss](), optimizer, batches, devices=devices, seed=seed)


def kind(row: parity.Row) -> str:
    """What a tensor is, for the table."""
    if row.stage == "layer":
        return "layer: " + row.tensor.partition(" of '")[0]
    gradient = row.tensor.startswith("gradient") or row.tensor == "value"
    return "step: loss, gradients" if gradient else "step: update"


def main() -> None:
    parser = argparse.ArgumentParser(description="How much of their error budgets healthy devices need.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--devices", default="cpu,reference", help="two devices")
    parser.add_argument("--dtypes", default="float32,float64,mixed_bfloat16,mixed_float16")
    parser.add_argument("--rows", type=int, default=64, help="samples of a batch")
    parser.add_argument("--json", type=Path, help="write the table there, too")
    options = parser.parse_args()
    first, _, second = options.devices.partition(",")
    table, alarms = [], []
    for dtype in options.dtypes.split(","):
        for width in WIDTHS:
            used = defaultdict(list)
            for network in NETWORKS:
                for seed in range(max(2, options.seeds * 64 // max(width, 64))):
                    found = report(network, width, dtype, (first, second), seed, options.rows)
                    alarms += [f"{dtype} {width} {network} seed {seed}: {found.verdict}"] * (not found.ok)
                    for row in found.rows:
                        if row.judged and 0 < row.budget < np.inf:
                            used[kind(row)] += [e / row.budget for e in row.errors]
            for name, values in sorted(used.items()):
                quantiles = {f"{q:g} %": float(np.percentile(values, q)) for q in (50, 99, 100)}
                table.append({"dtype": dtype, "width": width, "tensor": name, "count": len(values)} | quantiles)
                shown = "  ".join(f"{value:7.3f}" for value in quantiles.values())
                print(f"{dtype:15} {width:5}  {name:32} {len(values):7}  {shown}", flush=True)
    print("\n".join(alarms) or "no alarm")
    write(options, [*table, *({"alarm": text} for text in alarms)])


if __name__ == "__main__":
    main()
