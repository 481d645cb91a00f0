"""The backends under test, and when one of them is skipped."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import array_api_strict
import numpy as np
import pytest

import gpunet as gn
from gpunet.backend import Backend, register
from gpunet.errors import DeviceError
from gpunet.testing.plugin import unusable
from gpunet_backends.array_api import ArrayAPIBackend, open_strict, open_torch
from gpunet_backends.numpy_ import NumpyBackend, has_jit

array_api_strict.set_array_api_strict_flags(boolean_indexing=False, data_dependent_shapes=False)


pytest_plugins = ["pytester"]
KERNELS = re.compile(r"test_(cuda_|cublas_|captured_|numba_(formulas|math)|random_graphs)")
"""Files about generated sources and what runs them, the same whatever is installed around them."""
REQUIRED: set[str] = set()
"""Backends that must not be skipped, by --gpunet-require."""


def pytest_configure(config):
    REQUIRED.update(config.option.gpunet_require)


def pytest_collection_modifyitems(config, items):
    for item in items:
        if KERNELS.match(item.path.name):
            item.add_marker("kernels")
    if others := OPENERS.keys() - config.option.gpunet_device if config.option.gpunet_device else set():
        left_out = [item for item in items if others & set(map(str, parameters(item)))]
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


def parameters(item):
    """The backends that a test was made for."""
    values = item.callspec.params if hasattr(item, "callspec") else {}
    return [values[name] for name in ("backend", "device") if name in values]


class ReadOnlyNumpy(NumpyBackend):
    """NumPy whose inputs cannot be written: a layer that modifies its input or dy fails."""

    def asarray(self, x, dtype=None):
        """A read-only copy."""
        array = np.array(super().asarray(x, dtype))
        array.flags.writeable = False
        return array


def open_fakegpu(index: int = 0, gpus: int = 1, *, tf32: bool = False) -> Backend:
    import cuda_on_cpu
    import fakegpu

    if reason := cuda_on_cpu.missing():
        raise DeviceError(f"CUDA sources cannot be run on this CPU: {reason}")
    return fakegpu.open_fakegpu(index, gpus, tf32=tf32)


def open_numba() -> Backend:
    if not has_jit():
        raise DeviceError("Numba is not installed, or GPUNET_JIT=0")
    return NumpyBackend(jit=True)


OPENERS: dict[str, Callable[[], Backend]] = {
    "numpy": NumpyBackend,
    "numba": open_numba,
    "readonly": ReadOnlyNumpy,
    "reference": lambda: ArrayAPIBackend(np, None, "reference"),
    "strict": lambda: open_strict("device1"),
    "torch": lambda: open_torch(None),
    "fakegpu": open_fakegpu,
    "cuda": lambda: gn.device("cuda"),
}


@cache
def opened(name: str) -> Backend | str:
    """The backend, or why it cannot be tested here."""
    try:
        return register(OPENERS[name]())
    except DeviceError as error:
        return str(error)


def require(name: str) -> Backend:
    """The backend, or a skip that names the reason; GPUNET_REQUIRE_CUDA=1 makes a missing GPU a failure, and so on."""
    backend = opened(name)
    if isinstance(backend, str):
        unusable(name, backend, REQUIRED)
    return backend


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.cuda if n == "cuda" else ()) for n in OPENERS])
def backend(request) -> Backend:
    """Every backend in turn."""
    return require(request.param)


@pytest.fixture(params=[pytest.param(n, marks=pytest.mark.cuda if n == "cuda" else ()) for n in OPENERS])
def device(request) -> Backend:
    """The same for suites, instead of the devices of an installation."""
    return require(request.param)


@pytest.fixture
def cuda() -> Backend:
    """A usable NVIDIA GPU."""
    return require("cuda")


@pytest.fixture
def fakegpu() -> Callable[..., Backend]:
    """Makes a GPU without a GPU."""
    require("fakegpu")
    return open_fakegpu


@pytest.fixture
def launches(monkeypatch) -> list[str]:
    """One entry for each kernel that ran to its end: a runner falls back to plain NumPy where its kernel refuses."""
    from gpunet_backends import numba_runner

    made, launched = numba_runner.kernel, []

    def counted(source):
        function = made(source)

        def launch(*args):
            function(*args)
            launched.append(source.text)

        return launch

    monkeypatch.setattr(numba_runner, "kernel", counted)
    return launched


@pytest.fixture
def cpu() -> Backend:
    """The NumPy backend, without Numba."""
    return require("numpy")
