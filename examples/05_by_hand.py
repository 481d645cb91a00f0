"""The engine by hand: forward, loss, backward by the chain rule, update. And what becomes of gradients in depth.

Each sigmoid shrinks a gradient on its way back at least fourfold: in a deep network the first layers hardly learn.
ReLU lets it through where it is positive; but a unit that is negative for every sample gets no gradient at all.
"""

from typing import Any

import numpy as np

import gpunet as gn
from gpunet import layers, losses, optim

(x, y), _ = gn.datasets.digits()


def train(activation: type[layers.Sigmoid] | type[layers.ReLU]) -> list[float]:
    """A deep network; -> the norm of each weight's gradient in the first step, from the first layer to the last."""
    hidden = [part for _ in range(10) for part in (layers.Dense(64), activation())]
    model = layers.Sequential(*hidden, layers.Dense(10)).build((64,), device="auto")
    loss, optimizer, norms = losses.CrossEntropy(), optim.SGD(0.05, momentum=0.9), list[float]()
    for i in range(200):
        rows = np.random.default_rng(i).integers(0, len(x), 64)
        batch_x, batch_y = model.backend.asarray(x[rows]), model.backend.asarray(y[rows])

        ctx = model.context(training=True, step=i, seed=0)
        out, saved = model.forward(batch_x, ctx)  # z = x W + b,  a = f(z), layer by layer
        value, dy = loss(out, batch_y)  # the loss and its gradient
        model.backward(dy, saved, ctx)  # the chain rule, from the last layer to the first
        if i == 0:
            norms = [float(np.linalg.norm(g)) for name, g in model.get_gradients().items() if "weight" in name]
        optimizer.update(model)  # m ← 0.9 m + g,  p ← p - lr m

    dead = never_positive(model, hidden[1::2])
    print(
        f"{activation.__name__:8} loss {float(value):.3f} after 200 steps; gradients of the first and the last weight "
        f"{norms[0]:.0e}, {norms[-1]:.0e}; units that are 0 for every sample {dead:.0%}"
    )
    return norms


def never_positive(model: layers.Sequential, activations: list[Any]) -> float:
    """The share of units that are never positive."""
    outputs = []
    ctx = model.context(training=False, observe=lambda layer, a: outputs.append(a) if layer in activations else None)
    model.forward(model.backend.asarray(x), ctx)
    return float(np.mean([~(model.backend.to_numpy(a) > 0).any(0) for a in outputs]))


sigmoid, relu = train(layers.Sigmoid), train(layers.ReLU)
assert sigmoid[0] < 1e-4 * sigmoid[-1]
assert relu[0] > 1e-2 * relu[-1]
