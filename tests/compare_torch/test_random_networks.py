"""120 random networks, each trained for 20 steps in float64 next to its torch twin."""

from dataclasses import dataclass

import numpy as np
import pytest

from gpunet import TrainStep
from gpunet.layer import Layer
from gpunet.layers import Dense, Dropout, Flatten, ReLU, Sequential, Sigmoid, Tanh
from gpunet.losses import BinaryCrossEntropy, CrossEntropy, Loss, MeanSquaredError
from gpunet.optim import SGD, Adam, Optimizer

from .peer import Twin, assert_close, randomize, tensor, torch, torch_loss, torch_optimizer

CASES, STEPS, TOLERANCE = 120, 20, 1e-9


@dataclass
class Case:
    """What is trained, and on what."""

    layers: list[Layer]
    shape: tuple[int, ...]
    loss: Loss
    optimizer: Optimizer
    clip_norm: float | None
    batch_size: int


def random_case(rng) -> Case:
    """Depth 1 to 4; after each hidden Dense any mix of activations and dropout; vectors, sequences or images."""
    shape = [(int(rng.integers(1, 9)),), (3, int(rng.integers(1, 6))), (3, 2, 2)][rng.choice(3, p=[0.6, 0.2, 0.2])]
    layers = [Flatten()] if len(shape) == 3 else []
    if rng.random() < 0.2:
        layers.append(Dropout(0.2))
    for _ in range(rng.integers(0, 4)):
        layers.append(Dense(int(rng.integers(1, 13)), use_bias=bool(rng.random() < 0.8)))
        behind = [ReLU(), Sigmoid(), Tanh(), Dropout(float(rng.choice([0.0, 0.1, 0.3, 0.5])))]
        layers += [behind[i] for i in rng.permutation(4)[: rng.integers(0, 4)]]
    layers.append(Dense(int(rng.integers(1, 6)), use_bias=bool(rng.random() < 0.8)))
    losses = [CrossEntropy(), BinaryCrossEntropy(), MeanSquaredError()]
    betas = {"beta1": float(rng.choice([0.9, 0.5])), "beta2": float(rng.choice([0.999, 0.9]))}
    # rates at which nothing diverges: with SGD(0.05, momentum=0.9) 2 of 600 seeds overflowed, in torch too
    optimizers = [SGD(0.05), SGD(0.01, momentum=0.9), Adam(0.01, **betas, eps=float(rng.choice([1e-8, 1e-4])))]
    return Case(
        layers,
        shape,
        losses[rng.integers(3)],
        optimizers[rng.integers(3)],
        clip_norm=0.5 if rng.random() < 0.3 else None,
        batch_size=int(rng.integers(1, 18)),
    )


def random_target(loss, shape, rng):
    if isinstance(loss, CrossEntropy):
        return rng.integers(0, shape[-1], shape[:-1])
    return rng.random(shape) if isinstance(loss, BinaryCrossEntropy) else rng.normal(size=shape)


def torch_step(twin, optimizer, case, batch, step, seed):
    """One step as torch users write it; -> the loss."""
    x, y = batch
    optimizer.zero_grad()
    value = torch_loss(case.loss, twin(tensor(x), step=step, seed=seed), tensor(y))
    value.backward()
    if case.clip_norm is not None:
        torch.nn.utils.clip_grad_norm_(twin.parameters(), case.clip_norm)
    optimizer.step()
    return value.item()


@pytest.mark.parametrize("number", range(CASES))
def test_random_network(number):
    """The loss of every step and the final weights.

    Nothing keeps a ReLU's input off its kink: in float64 the runs differ by 1e-14, so no input is near enough to 0 for
    that to choose the other slope.
    """
    rng = np.random.default_rng(number)
    case = random_case(rng)
    model = Sequential(*case.layers).build(case.shape, device="cpu", dtype="float64")
    randomize(model, rng)
    twin = Twin(model)
    assert all(np.any(w != 0) for w in twin.weights().values())

    step = TrainStep(model, case.loss, case.optimizer, clip_norm=case.clip_norm, seed=number)
    their_optimizer = torch_optimizer(case.optimizer, twin.parameters())
    ours, theirs = [], []
    for i in range(STEPS):
        n = int(rng.integers(1, case.batch_size + 1)) if i % 5 == 4 else case.batch_size  # a last partial batch
        x = rng.normal(size=(n, *case.shape))
        y = random_target(case.loss, (n, *model.built[1]), rng)
        ours.append(float(step(x, y)))
        theirs.append(torch_step(twin, their_optimizer, case, (x, y), i, number))
    for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert_close(a, b, TOLERANCE, f"loss of step {i}")
    assert_close(model.get_weights(), twin.weights(), TOLERANCE, "weights")


def test_the_cases_cover_what_they_should():
    """Every layer, loss and optimizer occurs often, and every kind of input."""
    cases = [random_case(np.random.default_rng(number)) for number in range(CASES)]
    kinds = [type(layer).__name__ for case in cases for layer in {type(layer): layer for layer in case.layers}.values()]
    kinds += [type(case.loss).__name__ for case in cases] + [type(case.optimizer).__name__ for case in cases]
    kinds += [f"{len(case.shape)}-d" for case in cases] + [f"clipped: {bool(case.clip_norm)}" for case in cases]
    kinds += [f"depth {sum(isinstance(layer, Dense) for layer in case.layers)}" for case in cases]
    wanted = ["Dense", "ReLU", "Sigmoid", "Tanh", "Dropout", "Flatten", "CrossEntropy", "BinaryCrossEntropy"]
    wanted += [
        "MeanSquaredError",
        "SGD",
        "Adam",
        "1-d",
        "2-d",
        "3-d",
        "clipped: True",
        *map("depth {}".format, range(1, 5)),
    ]
    assert {kind: kinds.count(kind) for kind in wanted if kinds.count(kind) < 15} == {}
