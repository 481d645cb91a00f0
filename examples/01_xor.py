"""Why a network needs a non-linearity: exclusive or, with and without one.

Two classes that no straight line divides. Two Dense layers with nothing between them are one Dense layer; with Tanh
between them they bend the plane.
"""

import numpy as np

import gpunet as gn
from gpunet import layers, losses, optim

x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
y = np.array([[0], [1], [1], [0]], np.float32)


def accuracy(*between: layers.Tanh) -> float:
    """Of a network with 8 hidden units after 500 steps."""
    model = layers.Sequential(layers.Dense(8), *between, layers.Dense(1)).build((2,), device="auto")
    step = gn.TrainStep(model, losses.BinaryCrossEntropy(), optim.Adam(0.05))
    for _ in range(500):
        loss = step(x, y)
    right = float(((model.predict(x) > 0) == y).mean())
    print(f"{'with Tanh' if between else 'without':10} loss {float(loss):.3f}  accuracy {right:.2f}")
    return right


assert accuracy() < 1
assert accuracy(layers.Tanh()) == 1
