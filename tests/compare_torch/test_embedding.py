"""Embedding: rows and gradients, with and without a padding index."""

import numpy as np
import pytest

from gpunet.layers import Embedding, Sequential

from .peer import DTYPES, TOLERANCE, assert_close, tensor, torch


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("padding", [None, 0, 6])
@pytest.mark.parametrize("shape", [(5,), (4, 9), (3, 2, 70)], ids=str)
def test_embedding(shape, padding, dtype):
    rng = np.random.default_rng(3)
    model = Sequential(Embedding(7, 5, padding_index=padding)).build(shape[1:], device="cpu", dtype=dtype)
    table = torch.nn.Embedding(7, 5, padding_idx=padding, dtype=getattr(torch, dtype))
    model.set_weights({"0.weight": rng.normal(size=(7, 5))})
    with torch.no_grad():
        table.weight.copy_(tensor(model.get_weights()["0.weight"]))
    x = rng.integers(0, 7, shape)
    ctx = model.context(training=True)
    y, saved = model.forward(x, ctx)
    dy = rng.normal(size=y.shape).astype(dtype)
    model.backward(dy, saved, ctx)
    theirs = table(tensor(x))
    theirs.backward(tensor(dy))
    assert_close(y, theirs, 0.0, "rows")
    assert_close(model.get_gradients()["0.weight"], table.weight.grad, TOLERANCE[dtype], "gradient")
