"""Single kernels on a GPU: gpunet's fused formulas, PyTorch's operations, and the rate at which memory is copied."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from cuda_ceilings import Ceilings
from cuda_peers import NotAvailable
from cuda_peers.torch_ import begin, compiled
from cuda_report import Report
from layers import GELU, LayerNorm
from problems import BETA1, BETA2, EPS, LAYERNORM_EPS
from race import Contender

import gpunet as gn
from gpunet.formula import column_sum
from gpunet.layers import Dropout

SHAPE, NARROW, PARAMETERS = (8192, 4096), (65536, 10), 25_000_000
RATE = 0.1  # of dropout
INPUTS = 2**28  # bytes of all inputs that a kernel is called with, so that they are read from memory
TOLERANCE = 1e-4  # relative to the largest element
functional, aten = torch.nn.functional, torch.ops.aten


class Data(NamedTuple):
    """The same arrays for both: gpunet's and PyTorch's. Kernels are called with each set in turn.

    x, dy   one a set, of the shape; labels  one a set, as int32 for gpunet and int64 for PyTorch
    scale   one for each column
    """

    backend: Any
    device: str
    shape: tuple[int, int]
    host_x: list[Any]
    x: tuple[list[Any], list[Any]]
    dy: tuple[list[Any], list[Any]]
    labels: tuple[list[Any], list[Any]]
    scale: tuple[Any, Any]

    @property
    def sets(self) -> int:
        return len(self.host_x)

    def contender(self, step: Callable[[int], Any], ours: bool) -> Contender:
        """``step`` is called with the number of a set."""
        finish = self.backend.synchronize if ours or self.device == "cpu" else torch.cuda.synchronize
        return Contender(lambda i: step(i % self.sets), finish)

    def all(self, ours: Callable[[int], Any], eager: Callable[..., Any], *operands: list[Any]) -> dict[str, Contender]:
        """gpunet's, PyTorch's function of the operands of a set, and that compiled."""
        made = {
            "gpunet": self.contender(ours, True),
            "torch": self.contender(lambda i: eager(*(o[i] for o in operands)), False),
        }
        if self.device == "cuda":
            fast = compiled(eager)
            made["compile"] = self.contender(lambda i: fast(*(o[i] for o in operands)), False)
        return made


@lru_cache(maxsize=1)
def data_of(device: str, shape: tuple[int, int]) -> Data:
    rng, backend = np.random.default_rng(0), gn.device(device)
    sets = max(2, min(64, math.ceil(INPUTS / (4 * math.prod(shape))))) if device == "cuda" else 2
    xs, dys = ([rng.standard_normal(shape, dtype=np.float32) for _ in range(sets)] for _ in range(2))
    labels = [rng.integers(0, shape[1], shape[0]) for _ in range(sets)]
    scale = rng.standard_normal(shape[1], dtype=np.float32)

    def both(arrays: list[Any]) -> tuple[list[Any], list[Any]]:
        return [backend.asarray(a) for a in arrays], [torch.from_numpy(a).to(device) for a in arrays]

    ours = [backend.asarray(a.astype(np.int32)) for a in labels]
    own, theirs = both([scale])
    return Data(backend, device, shape, xs, both(xs), both(dys), (ours, both(labels)[1]), (own[0], theirs[0]))


def bias_relu(data: Data) -> dict[str, Contender]:
    fused, (x, t), (b, c) = data.backend.fuse(lambda xp, x, b: xp.maximum(x + b, 0.0)), data.x, data.scale
    return data.all(lambda i: fused(x[i], b), lambda x: torch.relu(x + c), t)


def cross_entropy(data: Data) -> dict[str, Contender]:
    loss, (x, t), (y, labels) = gn.losses.CrossEntropy().bind(data.backend), data.x, data.labels
    leaves = [one.clone().requires_grad_() for one in t]

    def with_gradient(function: Callable[..., Any]) -> Callable[[int], Any]:
        def step(i: int) -> Any:
            value = function(leaves[i], labels[i])
            return value.detach(), *torch.autograd.grad(value, leaves[i])

        return step

    made = data.all(lambda i: loss(x[i], y[i]), functional.cross_entropy)
    made["torch"] = data.contender(with_gradient(functional.cross_entropy), False)
    if "compile" in made:
        made["compile"] = data.contender(with_gradient(compiled(functional.cross_entropy)), False)
    return made


def layernorm(data: Data) -> dict[str, Contender]:
    layer, (x, t), (b, c) = LayerNorm(eps=LAYERNORM_EPS), data.x, data.scale
    fused = data.backend.fuse(lambda xp, x, scale, shift: layer.formula(xp, x, scale, shift))
    return data.all(
        lambda i: fused(x[i], b, b), lambda x: functional.layer_norm(x, data.shape[1:], c, c, LAYERNORM_EPS), t
    )


def layernorm_backward(data: Data) -> dict[str, Contender]:
    """With the gradients of scale and shift. gpunet computes mean and deviation again, PyTorch has kept them."""
    layer, (x, t), (dy, dt), (b, c) = LayerNorm(eps=LAYERNORM_EPS), data.x, data.dy, data.scale

    def formula(xp: Any, dy: Any, x: Any, scale: Any) -> Any:
        dx, dscale, dshift = layer.derivative(xp, dy, x, None, scale)
        return dx, column_sum(dscale), column_sum(dshift)

    fused, shape = data.backend.fuse(formula), list(data.shape[1:])
    kept = [aten.native_layer_norm(one, shape, c, c, LAYERNORM_EPS)[1:] for one in t]
    mean, inverse = ([pair[k] for pair in kept] for k in (0, 1))

    def eager(dy: Any, x: Any, mean: Any, inverse: Any) -> Any:
        return aten.native_layer_norm_backward(dy, x, shape, mean, inverse, c, c, [True] * 3)

    return data.all(lambda i: fused(dy[i], x[i], b), eager, dt, t, mean, inverse)


def dropout(data: Data) -> dict[str, Contender]:
    layer, (x, t) = Dropout(RATE), data.x
    fused = data.backend.fuse(lambda xp, x, *key: layer.formula(xp, x, *key))
    key = [data.backend.scalar(number, "int64") for number in (0, 0, 1)]
    return data.all(lambda i: fused(x[i], *key), lambda x: functional.dropout(x, RATE), t)


def gelu_backward(data: Data) -> dict[str, Contender]:
    """dx, and its sum over the rows, which is the gradient of a bias before it."""
    layer, (x, t), (dy, dt) = GELU(), data.x, data.dy

    def formula(xp: Any, dy: Any, x: Any) -> Any:
        dx = layer.derivative(xp, dy, x, None)
        return dx, column_sum(dx)

    def eager(dy: Any, x: Any) -> Any:
        dx = aten.gelu_backward(dy, x, approximate="tanh")
        return dx, dx.sum(0)

    fused = data.backend.fuse(formula)
    return data.all(lambda i: fused(dy[i], x[i]), eager, dt, t)


def adam(data: Data) -> dict[str, Contender]:
    """One flat array of ``shape[0]`` parameters; PyTorch's fused kernel."""
    backend, count = data.backend, data.shape[0]
    start, gradient = (x.ravel() for x in data.host_x[:2])
    rule = gn.optim.Adam(beta1=BETA1, beta2=BETA2, eps=EPS)
    fused, p, g = backend.fuse(rule.formula), backend.asarray(start.copy()), backend.asarray(gradient)
    m, v = (backend.zeros((count,), "float32") for _ in range(2))
    lr, t = backend.scalar(1e-3, "float32"), backend.zeros((), "float32")
    tensor = torch.from_numpy(start.copy()).to(data.device).requires_grad_()
    tensor.grad = torch.from_numpy(gradient).to(data.device)
    optimizer = torch.optim.Adam([tensor], lr=1e-3, betas=(BETA1, BETA2), eps=EPS, fused=True)

    def ours(i: int) -> Any:
        t[...] += 1
        fused(p, g, m, v, lr, t, out=(p, m, v))
        return p

    def theirs(i: int) -> Any:
        optimizer.step()
        return tensor

    return {"gpunet": data.contender(ours, True), "torch": data.contender(theirs, False)}


class Kernel(NamedTuple):
    """bytes_each  that one element moves: every array read or written once, 4 bytes each
    random  results may differ, in which elements are zero
    """

    name: str
    make: Callable[[Data], dict[str, Contender]]
    bytes_each: int
    shape: tuple[int, int] = SHAPE
    random: bool = False


KERNELS = [
    Kernel("Adam", adam, 28, (PARAMETERS, 1)),
    Kernel("bias + ReLU", bias_relu, 8),
    Kernel("softmax cross-entropy + gradient", cross_entropy, 8),
    Kernel("softmax cross-entropy + gradient", cross_entropy, 8, NARROW),
    Kernel("LayerNorm", layernorm, 8),
    Kernel("LayerNorm backward", layernorm_backward, 12),
    Kernel("dropout", dropout, 8, random=True),
    Kernel("GELU backward + bias gradient", gelu_backward, 12),
]


def check(kernel: Kernel, result: list[Any], expected: list[Any], x: Any) -> None:
    """Raises AssertionError unless all arrays agree, or, where they are random, as many elements are dropped."""
    for a, b in zip(result, expected, strict=True):
        assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
        if kernel.random:
            kept = a != 0
            slack = 5 * math.sqrt(RATE / a.size)  # standard deviations of the share
            assert math.isclose(1 - kept.mean(), RATE, abs_tol=slack), f"drops {1 - kept.mean():.4f}"
            np.testing.assert_allclose(a[kept], x[kept] / (1 - RATE), rtol=1e-6)
            continue
        error = np.abs(a - b).max() / np.abs(b).max()
        assert error <= TOLERANCE, f"is off by {error:.1e}"


def hosted(data: Data, result: Any) -> list[Any]:
    """The arrays of a result, on the host."""
    arrays = result if isinstance(result, tuple) else (result,)
    tensors = [a.detach().cpu().numpy() if isinstance(a, torch.Tensor) else data.backend.to_numpy(a) for a in arrays]
    return [np.array(a, np.float32) for a in tensors]


def run_kernel(report: Report, kernel: Kernel, device: str, ceilings: Ceilings, rounds: int) -> None:
    """One row."""
    shape = kernel.shape if device == "cuda" else (64, min(kernel.shape[1], 32))
    row: dict[str, Any] = {"kind": "kernel", "name": kernel.name, "shape": list(shape), "precision": "float32"}
    begin("float32")
    data = report.attempt(row, "data", lambda: data_of(device, shape))
    contenders = report.attempt(row, "contenders", lambda: kernel.make(data)) if data else None
    expected = report.attempt(row, "torch", lambda: hosted(data, contenders["torch"].step(0))) if contenders else None
    ready = {}
    for name, one in (contenders or {}).items() if expected else ():

        def compare(name: str = name, one: Contender = one) -> Contender:
            if name != "torch":
                check(kernel, hosted(data, one.step(0)), expected, data.host_x[0])
            return one

        made = report.attempt(row, name, compare)
        if made is not None:
            ready[name] = made
    if device == "cpu":
        report.attempt(row, "compile", unavailable)
    least = report.race(row, ready, rounds, data.sets if data else 1)
    row["bytes"] = kernel.bytes_each * math.prod(shape)
    row["GB_per_s"] = {name: row["bytes"] / us / 1e3 for name, us in least.items()}
    row["percent_of_copy"] = {name: 1e11 * rate / ceilings.copy for name, rate in row["GB_per_s"].items()}
    report.add(row)


def unavailable() -> None:
    raise NotAvailable("only tried on a GPU")
