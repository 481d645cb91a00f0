"""Recordings of training runs, to be replayed on every backend: python tests/golden/record.py [--device cuda]

A recording has what one device computed: initial weights, first losses and gradients, dropout's outputs, the losses of
30 steps and the weights after them. Inputs are uniform numbers or the package's digits: it has a hash of those only.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.metadata
import json
import platform
import re
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gpunet as gn
from gpunet import layers, losses, optim
from gpunet.backend import Backend, host, register
from gpunet.layer import Layer
from gpunet_backends.array_api import ArrayAPIBackend

FOLDER = Path(__file__).parent
FORMAT = 1
"""Of the file: raised when names or meanings of its entries change."""
STEPS, LEARNING_RATE, SEED = 30, 5e-3, 7
KEYS = ((0, 0), (7, 3), (2**32 - 1, 2**31))
"""(seed, step) of the dropouts recorded."""
PACKAGES = ("numpy", "array-api-compat", "cupy-cuda12x", "cupy-cuda13x", "nvmath-python")
Arrays = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A network, its loss, and the batches of all steps: x (STEPS, batch, features) float64, y of the loss's type."""

    layers: Callable[[], list[Layer]]
    loss: Callable[[], losses.Loss]
    batches: Callable[[], tuple[Any, Any]]


def digits() -> tuple[Any, Any]:
    """64 images a step, epoch after epoch."""
    (x, y), _ = gn.datasets.digits()
    made: list[tuple[Any, Any]] = []
    for epoch in range(STEPS):
        made += [batch for batch in gn.data.batches(x, y, 64, seed=SEED, epoch=epoch) if len(batch[0]) == 64]
        if len(made) >= STEPS:
            break
    xs, ys = zip(*made[:STEPS], strict=True)
    return np.stack(xs).astype(np.float64), np.stack(ys)


def uniform(features: int, outputs: int) -> tuple[Any, Any]:
    """Inputs in [-1, 1), targets in [0, 1), which depend on them. Uniform numbers are exact on every machine."""
    x = 2 * host().uniform(SEED, f"golden x {features}", (STEPS, 32, features)) - 1
    weight = 2 * host().uniform(SEED, f"golden weight {features}", (features, outputs)) - 1
    noise = host().uniform(SEED, f"golden noise {features}", (STEPS, 32, outputs))
    y = sum(x[..., i, None] * weight[i] for i in range(features))  # in this order: a matrix product's may differ
    return x, (y > 0) * 0.5 + 0.5 * noise


RUNS = {
    "digits": Run(lambda: [layers.Dense(32), layers.ReLU(), layers.Dense(10)], losses.CrossEntropy, digits),
    "regularised": Run(
        lambda: [  # twice the same block: two draws, and no more kernels to compile than for one
            *(layers.Dense(24), layers.Tanh(), layers.Dropout(0.2)),
            *(layers.Dense(16), layers.Tanh(), layers.Dropout(0.2), layers.Dense(3)),
        ],
        losses.BinaryCrossEntropy,
        lambda: uniform(12, 3),
    ),
    "regression": Run(
        lambda: [layers.Dense(16), layers.ReLU(), layers.Dense(2)], losses.MeanSquaredError, lambda: uniform(8, 2)
    ),
}


def model_of(run: Run, backend: Backend, dtype: str) -> layers.Sequential:
    """The network as it is built, for the run's inputs."""
    return layers.Sequential(*run.layers()).build(run.batches()[0].shape[2:], device=backend, dtype=dtype, seed=SEED)


def train(name: str, backend: Backend, dtype: str, steps: int, initial: Mapping[str, Any] | None = None) -> Arrays:
    """Losses, the first step's gradients and the last one's weights, by name; from given weights or those built."""
    run = RUNS[name]
    model = model_of(run, backend, dtype)
    model.set_weights(initial or {})
    step = gn.TrainStep(model, run.loss(), optim.Adam(LEARNING_RATE), seed=SEED)
    values: list[float] = []
    result: Arrays = {}
    xs, ys = run.batches()
    for i in range(steps):
        y = ys[i].astype(dtype) if ys.dtype.kind == "f" else ys[i]
        values.append(float(backend.to_numpy(step(xs[i].astype(dtype), y))))
        if i == 0:
            result |= {f"gradients/{p}": g for p, g in model.get_gradients().items()}
    if steps > 1:
        result |= {f"weights/{p}": w for p, w in model.get_weights().items()}
    return {f"{name}/{dtype}/{key}": value for key, value in (result | {"losses": np.array(values)}).items()}


def dropout(backend: Backend, dtype: str) -> Arrays:
    """Outputs of a Dropout while training: which elements are zero, and the others scaled."""
    x = backend.asarray((host().uniform(SEED, "golden dropout", (16, 33)) + 0.5).astype(dtype))
    model = layers.Sequential(layers.Dropout(0.3)).build((33,), device=backend, dtype=dtype)
    outputs = {}
    for seed, step in KEYS:
        with backend.scope():
            y, _ = model.forward(x, model.context(training=True, seed=seed, step=step))
        outputs[f"dropout/{dtype}/{seed} {step}"] = np.array(backend.to_numpy(y))
    return outputs


def replay(backend: Backend, initial: Mapping[str, Any] | None = None) -> Arrays:
    """All that is computed on a device. ``initial``: a recording, whose initial weights are taken."""
    arrays = {}
    for name in RUNS:
        start = f"{name}/initial/"
        weights = {key.removeprefix(start): w for key, w in (initial or {}).items() if key.startswith(start)}
        arrays |= train(name, backend, "float32", 1, weights) | train(name, backend, "float64", STEPS, weights)
    return arrays | dropout(backend, "float32") | dropout(backend, "float64")


def given() -> Arrays:
    """What is made on the host: initial weights, and hashes of the inputs."""
    arrays: Arrays = {}
    for name, run in RUNS.items():
        weights = model_of(run, host(), "float64").get_weights()
        arrays |= {f"{name}/initial/{key}": value for key, value in weights.items()}
        bytes_ = b"".join(np.asarray(a, a.dtype.newbyteorder("<")).tobytes() for a in run.batches())
        arrays[f"{name}/inputs"] = np.frombuffer(hashlib.sha256(bytes_).digest(), np.uint8)
    return arrays


def about(backend: Backend, name: str) -> dict[str, Any]:
    """Where and when; the format."""
    installed = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions()}
    versions = {key: installed[key] for key in PACKAGES if key in installed} | {"python": platform.python_version()}
    return {
        "format": FORMAT,
        "device": name,
        "detail": getattr(backend, "detail", backend.name),
        "gpu": gpu_name(backend),
        "gpunet": gn.__version__,
        "versions": versions,
        "system": platform.platform(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def gpu_name(backend: Any) -> str | None:
    """Of a CUDA device; None elsewhere."""
    if not hasattr(backend, "cupy"):
        return None
    return backend.cupy.cuda.runtime.getDeviceProperties(backend.index)["name"].decode()


def commit() -> str | None:
    """Of this checkout, with a + if files differ from it; None outside one."""
    git = ["git", "-C", str(FOLDER)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def save(path: Path, arrays: Arrays, facts: dict[str, Any]) -> None:
    """An .npz of the arrays; ``about`` in it is JSON."""
    np.savez_compressed(path, about=np.array(json.dumps(facts)), **arrays)


def load(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """-> arrays by name, and where they come from.

    Raises
        ValueError: the file has another format.
    """
    with np.load(path, allow_pickle=False) as data:
        facts = json.loads(str(data["about"]))
        if facts.get("format") != FORMAT:
            raise ValueError(
                f"{path.name} has format {facts.get('format')}, but format {FORMAT} is the one that is read. "
                "Record it again: python tests/golden/record.py"
            )
        return {key: data[key] for key in data.files if key != "about"}, facts


def main() -> None:
    parser = argparse.ArgumentParser(description="Record training runs of one device.")
    parser.add_argument("--device", default="reference", help='a device name such as "cuda"; default: the reference')
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder; default: beside this script")
    options = parser.parse_args()
    reference = options.device == "reference"
    backend = register(ArrayAPIBackend(np, None, "reference")) if reference else gn.device(options.device)
    facts = about(backend, options.device)
    name = "reference"
    if not reference:
        where = re.sub(r"[^a-z0-9]+", "-", (facts["gpu"] or options.device).lower()).strip("-")
        name = f"{where}-{facts['date'][:10]}"
    path = options.to / f"{name}.npz"
    made = given()
    save(path, made | replay(backend, made), facts)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB, {facts['detail']}")


if __name__ == "__main__":
    main()
