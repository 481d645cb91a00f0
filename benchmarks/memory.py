"""How much memory training on a memory-mapped .npy file takes beyond what a small run takes: RssAnon on Linux.

python benchmarks/memory.py [gigabytes, 2 by default]; it needs so much room in the temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import gpunet as gn
from gpunet import layers, losses, optim

FEATURES = 1000


def anonymous() -> float:
    """Anonymous resident memory of this process in MB: what is not a page of a file."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    raise SystemExit("it reads /proc/self/status, of Linux")


def main() -> None:
    samples = int(float(sys.argv[1] if len(sys.argv) > 1 else "2") * 1e9 / 4 / FEATURES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.npy"
        x = np.lib.format.open_memmap(path, "w+", np.float32, (samples, FEATURES))
        for start in range(0, samples, 10_000):
            x[start : start + 10_000] = np.random.default_rng(start).standard_normal(x[start : start + 10_000].shape)
        x.flush()
        del x
        x, y = np.load(path, mmap_mode="r"), np.arange(samples) % 2
        model = layers.Sequential(layers.Dense(64), layers.ReLU(), layers.Dense(2))
        trainer = gn.Trainer(model, losses.CrossEntropy(), optim.Adam(), metrics=["accuracy"], device="cpu")
        trainer.fit(np.zeros((512, FEATURES), np.float32), np.zeros(512, int), batch_size=256, verbose=0)
        before, most = anonymous(), 0.0

        class Watch(gn.train.callbacks.Callback):
            def on_step(self, run):
                nonlocal most
                most = max(most, anonymous())

        trainer.fit(x, y, batch_size=256, validation_split=0.1, callbacks=[Watch()], verbose=0)
        most = max(most, anonymous())
        size = path.stat().st_size / 1e9
    print(f"{size:.1f} GB, {samples} samples: {most - before:.0f} MB of anonymous memory above {before:.0f} MB")


if __name__ == "__main__":
    main()
