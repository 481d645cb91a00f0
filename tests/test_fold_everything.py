"""A stack of every pointwise layer: as one formula it computes what its layers compute one after another."""

from __future__ import annotations

import numpy as np
import pytest
from kit import EPS, draw, error, run

from gpunet import layers
from gpunet.pointwise import Pointwise

ACTIVATIONS = [getattr(layers, name) for name in layers.__all__]
ACTIVATIONS = [one for one in ACTIVATIONS if issubclass(one, Pointwise) and one is not layers.Dropout]
ROWS = (layers.LayerNorm, layers.RMSNorm, layers.Softmax, layers.LogSoftmax)


def stack(kinds):
    """Each layer, and a normalisation now and then, so that values stay where slopes are."""
    parts = []
    for i, kind in enumerate(kinds):
        parts += [layers.LayerNorm()] * (i % 3 == 0 and kind not in ROWS) + [kind()]
    return [*parts, layers.Dropout(0.1)]


@pytest.mark.parametrize("kind", ACTIVATIONS, ids=lambda kind: kind.__name__)
def test_each_layer_between_others(kind, backend):
    compare([layers.Dense(6), layers.Tanh(), kind(), layers.Sigmoid(), layers.Dense(3)], "float32", backend)


@pytest.mark.parametrize("part", range(4))
def test_many_at_once(part, backend):
    """A quarter of them: what is behind many reductions is computed anew for each, and takes long to compile."""
    kinds = ACTIVATIONS[part::4]
    compare(stack(kinds), "float32" if part % 2 else "float64", backend, steps=len(kinds))


def compare(parts, dtype, backend, steps=1):
    model = layers.Sequential(*parts).build((6,), device=backend, dtype=dtype)
    model.set_weights({p.name: 0.5 + draw(3, *p.shape) / 4 for p in model.store.parameters})
    x, dy = draw(0, 7, 6), draw(1, 7, *model.built[1])
    seen = []
    merged, apart = run(model, x, dy), run(model, x, dy, observe=lambda layer, y: seen.append(layer))
    assert seen == model.layers
    assert error(merged["y"], apart["y"]) <= 4 * EPS[dtype] * steps
    largest = max(np.abs(g).max() for name, g in apart.items() if name != "y")  # sums of many layers' slopes cancel
    for name, value in merged.items():
        limit = 40 * EPS[dtype] * (steps * largest if steps > 1 else np.abs(apart[name]).max())
        assert np.abs(value - apart[name]).max() <= limit, name
    assert np.all(np.isfinite(merged["y"]))
