"""The two ceilings of a GPU, measured, and what a training step must at least do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from statistics import median
from typing import Any, NamedTuple

import torch
from cuda_peers import PRECISIONS
from cuda_peers.torch_ import begin

COPIED = 5 * 2**28  # bytes of each of the two buffers, 1.25 GiB: far more than a cache
SIDE = 8192  # of the matrices
REPEATS, CALLS = 5, 10


class Ceilings(NamedTuple):
    """copy     bytes read and written a second, by a copy on the device
    products  floating-point operations a second, by matrix products in each precision; those that the device has
    """

    copy: float
    products: dict[str, float]

    def about(self) -> dict[str, Any]:
        """As written to the results."""
        rates = {precision: rate / 1e12 for precision, rate in self.products.items()}
        return {"copy_GB_per_s": self.copy / 1e9, "product_TFLOP_per_s": rates}


def measure(device: str, tiny: bool = False) -> Ceilings:
    """``tiny``: sizes that only show that it runs."""
    known = [precision for precision in PRECISIONS if device == "cuda" or precision != "tf32"]
    side = 32 if tiny else SIDE
    products = {precision: product_rate(device, precision, side) for precision in known}
    return Ceilings(copy_rate(device, 1000 if tiny else COPIED // 4), products)


def copy_rate(device: str, count: int) -> float:
    """Bytes a second, read and written, of a copy of float32 numbers."""
    a, b = (torch.rand(count, device=device) for _ in range(2))
    return 2 * a.nbytes / seconds(lambda: b.copy_(a), device)


def product_rate(device: str, precision: str, side: int) -> float:
    """Operations a second of a product of square matrices."""
    begin(precision)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))  # zeros would be faster
    out = torch.empty_like(a)
    return 2 * side**3 / seconds(lambda: torch.matmul(a, b, out=out), device)


def seconds(function: Callable[[], Any], device: str) -> float:
    """Of a call: the median of some repeats, each to the end of its work."""
    times = []
    for repeat in range(1 + REPEATS):
        start = time.perf_counter()
        for _ in range(CALLS):
            function()
        if device == "cuda":
            torch.cuda.synchronize()
        if repeat:  # the first one loads and warms up
            times.append((time.perf_counter() - start) / CALLS)
    return median(times)


def operations(widths: Sequence[int], batch: int) -> int:
    """Floating-point operations of the matrix products of a step: forward, dW, and dx but for the first layer."""
    sizes = [i * o for i, o in pairwise(widths)]
    return 2 * batch * (3 * sum(sizes) - sizes[0])


def fewest_bytes(widths: Sequence[int], batch: int, precision: str) -> int:
    """Bytes that products, loss and update read and write, each array once for each of them that needs it.

    Bias, activation and its derivative count as part of the products. In bfloat16, operands and results of products
    have 2 bytes; gradients of weights, and the weights that are updated, 4.
    """
    size = 2 if precision == "bfloat16" else 4
    moved = 0
    for layer, (i, o) in enumerate(pairwise(widths)):
        inputs, outputs, weight = batch * i * size, batch * o * size, i * o * size
        moved += inputs + weight + outputs  # z = a W
        moved += inputs + outputs + 4 * i * o  # dW = aᵀ dz
        if layer:
            moved += outputs + weight + 2 * inputs  # da = dz Wᵀ, zero where a is
        moved += 28 * (i * o + o)  # Adam: reads p, g, m, v, writes p, m, v
        moved += weight if precision == "bfloat16" else 0  # writes the weights in bfloat16
    return moved + 2 * batch * widths[-1] * size + 4 * batch  # the loss: reads logits and labels, writes the gradient


def floor(widths: Sequence[int], batch: int, precision: str, ceilings: Ceilings, moves: bool) -> dict[str, float]:
    """Seconds that a step takes at least: by its products, by its bytes if ``moves``, and the larger of the two."""
    made = {"operations": operations(widths, batch) / ceilings.products[precision]}
    if moves:
        made["bytes"] = fewest_bytes(widths, batch, precision) / ceilings.copy
    return made | {"larger": max(made.values())}
