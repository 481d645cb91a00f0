"""What a training step asks of the host, counted: a change that adds calls, kernels or arrays to a step fails here."""

from __future__ import annotations

import sys
from collections import Counter

import numpy as np
import pytest

import gpunet as gn
from gpunet import losses, optim
from gpunet.layers import Dense, Dropout, ReLU, Sequential
from gpunet_backends.numpy_ import NumpyBackend, has_jit

METHODS = ("asarray", "empty", "gemm", "scalar", "to_numpy", "zeros")


def counting_backend(counts, monkeypatch):
    """The CPU backend, which counts its own calls, the kernels it starts and the arrays it makes."""
    from gpunet_backends import blocks, numba_runner

    class Counting(NumpyBackend):
        def fuse(self, formula):
            fused = super().fuse(formula)

            def counted(*operands, out=None):
                counts["fused"] += 1
                return fused(*operands, out=out)

            return counted

    def count(name):
        method = getattr(NumpyBackend, name)

        def counted(self, *args, **options):
            counts[name] += 1
            if name in ("empty", "scalar", "zeros") or (name == "gemm" and options.get("out") is None):
                counts["arrays"] += 1
            return method(self, *args, **options)

        return counted

    for name in METHODS:
        setattr(Counting, name, count(name))
    compiled, empty = numba_runner.kernel, np.empty

    def kernel(source):
        function = compiled(source)

        def launched(*args):
            counts["kernels"] += 1
            return function(*args)

        return launched

    def allocated(*args):
        counts["arrays"] += 1
        return empty(*args)

    monkeypatch.setattr(numba_runner, "kernel", kernel)
    monkeypatch.setattr(numba_runner, "empty", allocated)
    monkeypatch.setattr(blocks, "thread_count", lambda: 1)
    return Counting(jit=True)


def python_calls(function, *args):
    """Calls of Python functions below this one."""
    calls = Counter()
    sys.setprofile(lambda frame, event, arg: calls.update([event]))
    try:
        function(*args)
    finally:
        sys.setprofile(None)
    return calls["call"]


def counted_step(step, counts, backend, inputs, classes):
    """Counts of one step, after two others."""
    x = np.random.default_rng(0).standard_normal((32, inputs)).astype(np.float32)
    y = np.arange(32, dtype=np.int32) % classes
    for _ in range(2):
        step(x, y)
    counts.clear()
    step(x, y)
    return dict(counts)


@pytest.mark.skipif(not has_jit(), reason="Numba is not installed")
def test_a_step_of_the_mlp(monkeypatch):
    counts = Counter()
    backend = counting_backend(counts, monkeypatch)
    model = Sequential(Dense(512), ReLU(), Dense(256), ReLU(), Dense(10)).build((784,), device=backend)
    step = gn.TrainStep(model, losses.CrossEntropy(), optim.Adam())
    assert counted_step(step, counts, backend, 784, 10) == {
        "asarray": 3,  # x; y, which is looked at twice
        "gemm": 8,  # y, dW and dx of three layers, no dx of the first
        "fused": 8,  # bias and activation of three layers, forward and backward; loss; Adam
        "kernels": 8,
        "arrays": 7,  # five products; the loss and its gradient
    }


@pytest.mark.skipif(not has_jit(), reason="Numba is not installed")
def test_a_step_of_a_deep_network_with_dropout_and_clipping(monkeypatch):
    counts = Counter()
    backend = counting_backend(counts, monkeypatch)
    hidden = [layer for _ in range(10) for layer in (Dense(64), ReLU(), Dropout(0.1))]
    model = Sequential(*hidden, Dense(10)).build((64,), device=backend)
    step = gn.TrainStep(model, losses.CrossEntropy(), optim.SGD(momentum=0.9), clip_norm=1.0)
    assert counted_step(step, counts, backend, 64, 10) == {
        "asarray": 3,
        "gemm": 32,
        "scalar": 1,  # the number of the step
        "fused": 27,  # as above, and three of clipping
        "kernels": 26,  # all but the norm, the square root of one number
        "arrays": 35,  # besides the scalar: 21 products, y of ten groups that keep x, loss and gradient, the norm
    }


@pytest.mark.skipif(not has_jit(), reason="Numba is not installed")
def test_python_calls_of_a_step(monkeypatch):
    from gpunet_backends import blocks

    monkeypatch.setattr(blocks, "thread_count", lambda: 1)
    model = Sequential(Dense(512), ReLU(), Dense(256), ReLU(), Dense(10)).build((784,), device="cpu")
    step = gn.TrainStep(model, losses.CrossEntropy(), optim.Adam())
    x, y = np.ones((32, 784), np.float32), np.zeros(32, np.int32)
    for _ in range(2):
        step(x, y)
    assert python_calls(step, x, y) <= 154
