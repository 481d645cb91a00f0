"""One spec for each layer: how to make it, and its output by an independent formula."""

from __future__ import annotations

from functools import cache

import numpy as np
from activation_specs import ACTIVATIONS
from spec import LayerSpec

from gpunet import layers


@cache
def bits(shape: tuple[int, ...], draw_number: int) -> np.ndarray:
    """Random bits of step 1 and seed 7 by Python integers: slow, and independent of the backends."""
    from gpunet.random import threefry

    words = [threefry((7, draw_number), (i, 1))[0] for i in range(int(np.prod(shape)))]
    return np.array(words, dtype=np.int64).reshape(shape)


def dropped(x: np.ndarray, rate: float, draw_number: int = 0) -> np.ndarray:
    return np.where(bits(x.shape, draw_number) >= rate * 2**32, x, 0) / (1 - rate)


def standardized(x: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)


def over_batch(x: np.ndarray) -> np.ndarray:
    rows = x.reshape(-1, x.shape[-1])
    return (x - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.einsum("...k,...k->...", x, x)[..., None] / x.shape[-1] + 1e-6)


def dense(x: np.ndarray, p: dict, name: str) -> np.ndarray:
    return np.einsum("...i,io->...o", x, p[f"{name}.weight"]) + p[f"{name}.bias"]


LAYERS = [
    *ACTIVATIONS,
    LayerSpec(
        "batch_norm",
        layers.BatchNorm,
        (5, 6),
        lambda x, p: over_batch(x) * p["scale"] + p["shift"],
        mixes="in training",
    ),
    LayerSpec(
        "batch_norm_time",
        layers.BatchNorm,
        (4, 3, 6),
        lambda x, p: over_batch(x) * p["scale"] + p["shift"],
        mixes="in training",
    ),
    LayerSpec("layer_norm", layers.LayerNorm, (5, 6), lambda x, p: standardized(x) * p["scale"] + p["shift"]),
    LayerSpec(
        "layer_norm_time", lambda: layers.LayerNorm(affine=False, eps=0.1), (4, 3, 6), lambda x, p: standardized(x, 0.1)
    ),
    LayerSpec("rms_norm", layers.RMSNorm, (5, 6), lambda x, p: unit(x) * p["scale"]),
    LayerSpec("rms_norm_plain", lambda: layers.RMSNorm(affine=False), (5, 6), lambda x, p: unit(x)),
    LayerSpec(
        "reshape",
        lambda: layers.Reshape((3, -1)),
        (5, 2, 6),
        lambda x, p: np.stack([r.reshape(3, 4) for r in x]),
        maps=True,
    ),
    LayerSpec("permute", lambda: layers.Permute((2, 1)), (5, 2, 3), lambda x, p: np.einsum("nij->nji", x), maps=True),
    LayerSpec(
        "residual",
        lambda: layers.Residual(layers.Dense(3), layers.Tanh(), layers.Dense(4)),
        (5, 4),
        lambda x, p: x + dense(np.tanh(dense(x, p, "0")), p, "2"),
    ),
    LayerSpec(
        "add",
        lambda: layers.Add(layers.Dense(3), layers.Sequential(layers.Dense(3), layers.Tanh())),
        (5, 4),
        lambda x, p: dense(x, p, "0") + np.tanh(dense(x, p, "1.0")),
    ),
    LayerSpec(
        "concat",
        lambda: layers.Concat(layers.Dense(3), layers.Identity(), layers.Dense(2, name="b")),
        (5, 4),
        lambda x, p: np.concatenate([dense(x, p, "0"), x, dense(x, p, "b")], axis=-1),
    ),
    LayerSpec(
        "dense", lambda: layers.Dense(3), (5, 4), lambda x, p: np.einsum("ni,io->no", x, p["weight"]) + p["bias"]
    ),
    LayerSpec(
        "dense_no_bias",
        lambda: layers.Dense(3, use_bias=False),
        (5, 4),
        lambda x, p: np.einsum("ni,io->no", x, p["weight"]),
    ),
    LayerSpec(
        "dense_time",
        lambda: layers.Dense(3),
        (5, 2, 4),
        lambda x, p: np.einsum("nti,io->nto", x, p["weight"]) + p["bias"],
    ),
    LayerSpec("embedding", lambda: layers.Embedding(4, 3), (5, 6), lambda x, p: np.eye(4)[x] @ p["weight"]),
    LayerSpec("embedding_of_one", lambda: layers.Embedding(7, 3), (5,), lambda x, p: np.eye(7)[x] @ p["weight"]),
    LayerSpec(
        "embedding_dense",
        lambda: layers.Sequential(layers.Embedding(4, 3), layers.Flatten(), layers.Dense(2)),
        (5, 2),
        lambda x, p: dense((np.eye(4)[x] @ p["0.weight"]).reshape(len(x), 6), p, "2"),
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
