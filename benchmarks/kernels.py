"""Single layers, softmax, a loss and Adam, against PyTorch: python benchmarks/kernels.py [--threads 1]"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from environment import parse, parser, write
from layers import GELU, LayerNorm
from peers.torch_compile import compiled
from race import Contender, race, show, summary

import gpunet as gn
from gpunet.layer import Layer
from gpunet.layers import Dropout, Sequential

SHAPE = (4096, 512)
PARAMETERS = 535_818  # of an MLP 784-512-256-10
RATE = 0.1  # of dropout
TOLERANCE = 1e-4  # relative to the largest element
functional = torch.nn.functional

rng = np.random.default_rng(0)
X, DY = (rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(2))
LABELS = rng.integers(0, SHAPE[1], SHAPE[0])


class Kernel(NamedTuple):
    """contenders  each step returns a tuple of arrays or tensors
    random  they may differ, in which elements are zero
    """

    name: str
    contenders: Callable[[], dict[str, Contender]]
    random: bool = False


def layer_kernels(
    name: str, layer: type[Layer], function: Any, parameters: int = 0, *settings: Any
) -> Iterator[Kernel]:
    """The layer's forward pass while training, and both passes, with gradients of input and parameters."""
    starts = [torch.ones, torch.zeros][:parameters]  # of scale and shift
    for backward in (False, True):

        def contenders(backward: bool = backward) -> dict[str, Contender]:
            tensors = [torch.from_numpy(X).requires_grad_(), *(s(SHAPE[1], requires_grad=True) for s in starts)]
            return {
                "gpunet": gpunet_layer(layer(*settings), backward),
                "torch": torch_function(function, tensors, backward),
                "compile": torch_function(compiled(function), tensors, backward),
            }

        yield Kernel(f"{name} forward" + " + backward" * backward, contenders, random=layer is Dropout)


def gpunet_layer(layer: Layer, backward: bool) -> Contender:
    model = Sequential(layer).build(SHAPE[1:], device="cpu")
    parameters = model.store.parameters

    def step(i: int) -> Any:
        with model.backend.scope():
            ctx = model.context(training=True, step=i, needs_input_grad=True)
            y, saved = model.forward(X, ctx)
            if not backward:
                return (y,)
            return y, model.backward(DY, saved, ctx), *(p.grad for p in parameters)

    return Contender(step)


def torch_function(function: Any, tensors: list[Any], backward: bool) -> Contender:
    dy = torch.from_numpy(DY)

    def step(i: int) -> Any:
        y = function(*tensors)
        return (y, *torch.autograd.grad(y, tensors, dy)) if backward else (y,)

    return Contender(step)


def softmax() -> dict[str, Contender]:
    def formula(xp: Any, x: Any) -> Any:
        e = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
        return e / xp.sum(e, axis=-1, keepdims=True)

    fused, x = gn.device("cpu").fuse(formula), torch.from_numpy(X)
    other = compiled(lambda x: torch.softmax(x, -1))
    return {
        "gpunet": Contender(lambda i: (fused(X),)),
        "torch": Contender(lambda i: (torch.softmax(x, -1),)),
        "compile": Contender(lambda i: (other(x),)),
    }


def cross_entropy() -> dict[str, Contender]:
    loss, x, y = gn.losses.CrossEntropy(), torch.from_numpy(X).requires_grad_(), torch.from_numpy(LABELS)
    labels, other = LABELS.astype(np.int32), compiled(functional.cross_entropy)

    def step(function: Any) -> Any:
        value = function(x, y)
        return value, *torch.autograd.grad(value, x)

    return {
        "gpunet": Contender(lambda i: loss(X, labels)),
        "torch": Contender(lambda i: step(functional.cross_entropy)),
        "compile": Contender(lambda i: step(other)),
    }


def adam() -> dict[str, Contender]:
    start, g = (rng.standard_normal(PARAMETERS, dtype=np.float32) for _ in range(2))
    backend = gn.device("cpu")
    fused, p = backend.fuse(gn.optim.Adam().formula), start.copy()
    m, v = (backend.zeros((PARAMETERS,), "float32") for _ in range(2))
    lr, t = backend.scalar(1e-3, "float32"), backend.zeros((), "float32")
    tensor = torch.from_numpy(start.copy()).requires_grad_()
    tensor.grad = torch.from_numpy(g)
    optimizer = torch.optim.Adam([tensor], lr=1e-3, fused=True)

    def gpunet_step(i: int) -> Any:
        t[...] += 1
        return fused(p, g, m, v, lr, t, out=(p, m, v))[:1]

    def torch_step(i: int) -> Any:
        optimizer.step()
        return (tensor,)

    return {"gpunet": Contender(gpunet_step), "torch": Contender(torch_step)}


def gelu(x: Any) -> Any:
    return functional.gelu(x, approximate="tanh")


def layernorm(x: Any, scale: Any, shift: Any) -> Any:
    return functional.layer_norm(x, SHAPE[1:], scale, shift)


def dropout(x: Any) -> Any:
    return functional.dropout(x, RATE)


KERNELS = [
    Kernel("softmax", softmax),
    Kernel("softmax cross-entropy + gradient", cross_entropy),
    *layer_kernels("LayerNorm", LayerNorm, layernorm, 2),
    *layer_kernels("GELU", GELU, gelu),
    *layer_kernels("Dropout", Dropout, dropout, 0, RATE),
    Kernel("Adam", adam),
]


def check_agreement(kernel: Kernel, contenders: dict[str, Contender]) -> None:
    """Raises AssertionError unless all give gpunet's arrays, or, where they are random, drop as many elements."""
    results = {name: [host(a) for a in contender.step(0)] for name, contender in contenders.items()}
    for name, arrays in results.items():
        if kernel.random:
            share = [float((a == 0).mean()) for a in arrays]
            kept = arrays[0] != 0
            assert all(math.isclose(s, RATE, abs_tol=0.005) for s in share), f"{name} drops {share}"
            np.testing.assert_allclose(arrays[0][kept], X[kept] / (1 - RATE), rtol=TOLERANCE, err_msg=name)
            continue
        for a, expected in zip(arrays, results["gpunet"], strict=True):
            error = np.abs(a - expected).max() / np.abs(expected).max()
            assert error <= TOLERANCE, f"{kernel.name}: {name} is off by {error:.1e}"


def host(array: Any) -> Any:
    return np.array(array.detach().numpy() if isinstance(array, torch.Tensor) else array)


def main() -> None:
    options = parser("Single kernels, float32, on the CPU.")
    options.add_argument("--threads", type=int, default=1, help="of all peers; default 1")
    options = parse(options)
    rows = []
    for kernel in KERNELS:
        contenders = kernel.contenders()
        check_agreement(kernel, contenders)
        rows.append({"kernel": kernel.name} | summary(race(contenders, options.rounds)))
        show(f"{kernel.name}, {options.threads} threads", rows[-1])
    write(options, rows)


if __name__ == "__main__":
    main()
