"""One spec for each layer: how to make it, and its output by an independent formula."""

from __future__ import annotations

import numpy as np
from activation_specs import ACTIVATIONS
from spec import LayerSpec

from gpunet import layers


def bits(shape: tuple[int, ...], draw_number: int) -> np.ndarray:
    """Random bits of step 1 and seed 7 by Python integers: slow, and independent of the backends."""
    from gpunet.random import threefry

    words = [threefry((7, draw_number), (i, 1))[0] for i in range(int(np.prod(shape)))]
    return np.array(words, dtype=np.int64).reshape(shape)


def dropped(x: np.ndarray, rate: float, draw_number: int = 0) -> np.ndarray:
    return x * (bits(x.shape, draw_number) >= rate * 2**32) / (1 - rate)


LAYERS = [
    *ACTIVATIONS,
    LayerSpec(
        "dense", lambda: layers.Dense(3), (5, 4), lambda x, p: np.einsum("ni,io->no", x, p["0.weight"]) + p["0.bias"]
    ),
    LayerSpec(
        "dense_no_bias",
        lambda: layers.Dense(3, use_bias=False),
        (5, 4),
        lambda x, p: np.einsum("ni,io->no", x, p["0.weight"]),
    ),
    LayerSpec(
        "dense_time",
        lambda: layers.Dense(3),
        (5, 2, 4),
        lambda x, p: np.einsum("nti,io->nto", x, p["0.weight"]) + p["0.bias"],
    ),
    LayerSpec("dropout", lambda: layers.Dropout(0.3), (5, 4), lambda x, p: dropped(x, 0.3), maps=True),
    LayerSpec("flatten", layers.Flatten, (5, 2, 3), lambda x, p: np.stack([r.ravel() for r in x]), maps=True),
    LayerSpec(  # a view before a formula: it must not be overwritten
        "flatten_relu",
        lambda: layers.Sequential(layers.Flatten(), layers.ReLU()),
        (5, 6),
        lambda x, p: np.maximum(x, 0),
        maps=True,
    ),
    LayerSpec(  # a view of the caller's dy behind a formula
        "tanh_flatten",
        lambda: layers.Sequential(layers.Tanh(), layers.Flatten()),
        (5, 6),
        lambda x, p: np.tanh(x),
        maps=True,
    ),
    LayerSpec(
        "sequential",
        lambda: layers.Sequential(
            layers.Dense(6, name="a"), layers.Tanh(), layers.Dropout(0.2), layers.ReLU(), layers.Dense(2, name="b")
        ),
        (5, 4),
        lambda x, p: (
            np.einsum(
                "ni,io->no",
                np.maximum(dropped(np.tanh(np.einsum("ni,io->no", x, p["a.weight"]) + p["a.bias"]), 0.2), 0),
                p["b.weight"],
            )
            + p["b.bias"]
        ),
    ),
]
