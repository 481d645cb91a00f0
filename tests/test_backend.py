"""The registry of devices."""

from __future__ import annotations

import gc
import sys
import weakref
from importlib.metadata import EntryPoint

import numpy as np
import pytest

import gpunet as gn
from gpunet import backend
from gpunet.errors import ArrayError, DeviceError
from gpunet_backends.numpy_ import NumpyBackend


@pytest.fixture
def registry(monkeypatch):
    """A registry of its own, with the entry points given."""

    def use(**entries):
        points = {n: EntryPoint(n, v, "gpunet.backends") for n, v in entries.items()}
        monkeypatch.setattr(backend, "_entry_points", lambda: points)
        monkeypatch.setattr(backend, "_opened", {})
        monkeypatch.setattr(backend, "_live", [])

    return use


def test_cpu_is_numpy_and_opened_once():
    assert gn.device("cpu") is gn.device("cpu")
    assert gn.device("cpu").xp is np
    assert backend.host() is gn.device("cpu")
    with pytest.raises(DeviceError, match=r"device 'cpu:1' is not usable: there is no 'cpu:1'\. Use \"cpu\"\. See"):
        gn.device("cpu:1")


def test_a_backend_passes_through(cpu):
    assert gn.device(cpu) is cpu


def test_a_backend_that_was_made_by_hand_goes_with_its_last_user():
    """A GPU's memory hangs on it."""
    made = backend.register(NumpyBackend())
    gone = weakref.ref(made)
    x = made.zeros((2,), "float32")
    assert backend.of(x) is made
    del made
    gc.collect()
    assert gone() is None
    assert backend.of(x).owns(x)


def test_unknown_names_are_refused():
    with pytest.raises(DeviceError, match=r"device 'gpu' is unknown. Use one of: auto, array_api_strict, cpu, cuda"):
        gn.device("gpu")


def test_a_device_of_an_entry_point():
    strict = gn.device("array_api_strict:device1")
    assert str(strict.device) == "array_api_strict.Device('device1')"
    with pytest.raises(DeviceError, match=r"it has no device 'x'\. Use one of: CPU_DEVICE, device1"):
        gn.device("array_api_strict:x")


def test_auto_is_the_gpu_if_usable_else_the_cpu(registry, monkeypatch):
    monkeypatch.delenv("GPUNET_DEVICE", raising=False)
    registry(cpu="gpunet_backends.numpy_:open_cpu", cuda="gpunet_backends.array_api:open_strict")
    assert gn.device("auto").name == "array_api_strict"
    registry(cpu="gpunet_backends.numpy_:open_cpu", cuda="nowhere:open")
    assert gn.device("auto").name == "numpy"
    assert gn.device().name == "numpy"


def test_the_environment_overrides_auto(registry, monkeypatch):
    registry(cpu="gpunet_backends.numpy_:open_cpu", other="gpunet_backends.array_api:open_strict")
    monkeypatch.setenv("GPUNET_DEVICE", "other:device1")
    assert gn.device("auto").name == "array_api_strict"
    assert gn.device("cpu").name == "numpy"
    monkeypatch.setenv("GPUNET_DEVICE", "nothing")
    with pytest.raises(DeviceError, match="device 'nothing' is unknown"):
        gn.device("auto")


def test_a_backend_that_cannot_be_imported_is_a_row(registry):
    registry(cpu="gpunet_backends.numpy_:open_cpu", bad="nowhere_to_be_found:open")
    rows = {r.name: r for r in gn.devices()}
    assert rows["cpu"].usable
    assert not rows["bad"].usable
    assert "cannot be imported (No module named 'nowhere_to_be_found')" in rows["bad"].detail


def test_without_entry_points_the_remedy_is_to_install(monkeypatch):
    import importlib.metadata

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [])
    with pytest.raises(DeviceError, match=r"gpunet is not installed: .* Run: pip install gpunet"):
        backend._entry_points()


def test_missing_libraries_are_named(monkeypatch):
    from gpunet_backends import array_api

    monkeypatch.setitem(sys.modules, "array_api_strict", None)
    with pytest.raises(DeviceError, match=r"array-api-strict is not installed\. Run: pip install array-api-strict"):
        array_api.open_strict(None)
    monkeypatch.setitem(sys.modules, "array_api_compat.torch", None)
    with pytest.raises(DeviceError, match=r"PyTorch is not installed\. Run: pip install torch"):
        array_api.open_torch(None)


def test_namespaces_whose_slices_are_copies_are_refused():
    from gpunet_backends.array_api import ArrayAPIBackend

    class Copies:
        float32 = np.float32
        zeros = staticmethod(np.zeros)
        reshape = staticmethod(lambda x, shape: np.array(x).reshape(shape))

    with pytest.raises(DeviceError, match="slices of copies arrays are copies, and parameters must be views"):
        ArrayAPIBackend(Copies, None, "copies")


def test_of_finds_the_newest_owner(cpu):
    from conftest import require

    strict = require("strict")
    assert backend.of(strict.asarray([1.0])).name == "array_api_strict"
    assert backend.of(np.zeros(1)).xp is np
    with pytest.raises(ArrayError, match=r"no backend in use owns this str. Convert it with device.asarray"):
        backend.of("x")


def test_float16_storage_on_every_backend_is_computed_in_float32(backend):
    if not hasattr(backend.xp, "float16"):
        pytest.skip(f"{backend.name} has no float16")
    x = backend.asarray(np.full((1, 4), 300), "float16")
    y = backend.to_numpy(backend.fuse(lambda xp, x: x * x / 300)(x))  # 90,000 overflows in float16
    assert y.dtype == np.float16
    assert y.tolist() == [[300] * 4]
