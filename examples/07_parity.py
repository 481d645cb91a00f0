"""Record a run on one device, replay it on another, and read where and by how much they differ."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gpunet import layers, losses, optim, parity

rng = np.random.default_rng(0)
batches = [(rng.standard_normal((32, 8)), rng.integers(0, 3, 32)) for _ in range(5)]
model = layers.Sequential(layers.Dense(16), layers.LayerNorm(), layers.GELU(), layers.Dropout(0.1), layers.Dense(3))

with TemporaryDirectory() as folder:
    recording = Path(folder) / "run.safetensors"
    parity.record(model, losses.CrossEntropy(), optim.Adam(1e-2), batches, recording, device="reference")
    report = parity.replay(recording, device="cpu")
print(report)
assert report.ok
assert {row.stage for row in report.rows} == {"layer", "first step", "third step", "last step", "run"}


class Skewed(layers.Tanh):
    """Tanh that is a little off on one of two devices, as a kernel may be."""

    def forward(self, x, ctx):
        y, saved = super().forward(x, ctx)
        return (y * 1.0001 if ctx.backend.name == "numpy" else y), saved


model = layers.Sequential(layers.Dense(16), Skewed(name="suspect"), layers.Dense(3))
report = parity.compare(model, losses.CrossEntropy(), optim.Adam(1e-2), batches, devices=("reference", "cpu"))
print(f"\nand now with a defect:\n{report.verdict}")
assert not report.ok
assert str(report.first) == "layer: Skewed 'suspect': output"
assert report.first.bad == ("cpu",)
