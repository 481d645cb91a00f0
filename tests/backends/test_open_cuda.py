"""What open_cuda says when a GPU cannot be used. The errors' texts are those of CuPy 14.2 and CUDA 13."""

import sys

import pytest
from fake_cublas_lt import FakeCublasLt
from fakegpu import CUDARuntimeError, FakeCupy

import gpunet as gn
from gpunet.errors import DeviceError
from gpunet_backends import cupy_
from gpunet_backends.cublas_lt import LtMatmul
from gpunet_backends.cupy_ import open_cuda


@pytest.fixture
def cupy(monkeypatch, fakegpu) -> FakeCupy:
    """``import cupy`` finds a fake."""
    fake = FakeCupy(gpus=2)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", fake)
    monkeypatch.setattr(cupy_, "load", lambda: FakeCublasLt(fake.submit, lambda: False))
    return fake


def failing(error: Exception):
    def fail(*args, **kwargs):
        raise error

    return fail


INSUFFICIENT = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"
NVRTC = 'Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: libnvrtc.so.13 or libnvrtc.so.12\n'
IMPORT_ERROR = """
================================================================
Failed to import CuPy.

If you installed CuPy via wheels, make sure that the package matches with the version of CUDA.

Original error:
  ImportError: libcudart.so.12: cannot open shared object file: No such file or directory
================================================================
"""


def reason(device: str | None = None) -> str:
    with pytest.raises(DeviceError) as caught:
        open_cuda(device)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


def test_opens(cupy):
    assert open_cuda(None).index == open_cuda("0").index == 0
    assert open_cuda("1").device.id == 1
    assert cupy.counts.synchronisations == 6  # each time one for the probe of views, one for the smoke test


def test_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    assert reason() == (
        'CuPy is not installed. Run: pip install "gpunet[cuda13]" (driver 580 or newer) or "gpunet[cuda12]", '
        'or use device="cpu".'
    )


def test_the_device_function_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(gn.backend, "_opened", {})
    with pytest.raises(
        DeviceError, match=r"device 'cuda:3' is not usable: CuPy is not installed\. .* See: gpunet devices"
    ):
        gn.device("cuda:3")


def test_broken_installation(monkeypatch, tmp_path):
    (tmp_path / "cupy.py").write_text(f"raise ImportError({IMPORT_ERROR!r})")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    assert reason().startswith(
        "CuPy cannot be imported: ImportError: libcudart.so.12: cannot open shared object file: No such file or "
        'directory. Reinstall it: pip install "gpunet[cuda13]"'
    )


def test_no_driver(cupy):
    cupy.cuda.runtime.getDeviceCount = failing(CUDARuntimeError(35, INSUFFICIENT))
    cupy.cuda.runtime.driverGetVersion = lambda: 0  # what it is without a driver; the error is the same as below
    assert reason() == 'no NVIDIA driver found. Install one, or use device="cpu".'


def test_driver_too_old(cupy):
    cupy.cuda.runtime.getDeviceCount = failing(CUDARuntimeError(35, INSUFFICIENT))
    cupy.cuda.runtime.driverGetVersion = lambda: 12080
    assert reason().startswith(
        "the NVIDIA driver is too old: it offers CUDA 12.8, and this CuPy needs 13.2. Update the driver, install the "
        'CuPy for it, pip install "gpunet[cuda13]"'
    )


@pytest.mark.parametrize("count", [failing(CUDARuntimeError(100, NO_DEVICE)), lambda: 0])
def test_no_gpu(cupy, count):
    cupy.cuda.runtime.getDeviceCount = count
    assert reason().startswith("the driver shows no NVIDIA GPU. Check nvidia-smi and the variable CUDA_VISIBLE_DEVICES")


def test_cuda_does_not_start(cupy):
    cupy.cuda.runtime.getDeviceCount = failing(CUDARuntimeError(802, "cudaErrorSystemNotReady: not yet initialized"))
    assert reason().startswith("CUDA does not start: cudaErrorSystemNotReady: not yet initialized. Check nvidia-smi")


def test_missing_nvrtc(cupy, monkeypatch):
    monkeypatch.setattr(cupy.cuda.nvrtc, "getSupportedArchs", failing(RuntimeError(NVRTC)))
    assert reason() == (
        'the CUDA library nvrtc is missing. Run: pip install "gpunet[cuda13]" (driver 580 or newer) or '
        '"gpunet[cuda12]", or use device="cpu".'
    )


def test_missing_cublas(cupy, monkeypatch):
    monkeypatch.setattr(cupy_, "load", failing(DeviceError("the CUDA library cublasLt is missing. Run: pip.")))
    assert reason() == "the CUDA library cublasLt is missing. Run: pip."


def test_other_failures(cupy, monkeypatch):
    monkeypatch.setattr(LtMatmul, "matmul", failing(MemoryError("Out of memory allocating 512 bytes.\nmore")))
    assert reason().startswith(
        "a small computation failed with MemoryError: Out of memory allocating 512 bytes. Check nvidia-smi"
    )


def test_wrong_numbers(cupy, monkeypatch):
    monkeypatch.setattr(LtMatmul, "matmul", lambda *args: cupy.zeros((2, 2), "float32"))
    assert reason() == ('a small computation on cuda:0 gave wrong numbers, [[0.0, 0.0], [0.0, 0.0]]. Use device="cpu".')


def test_tf32(cupy):
    assert open_cuda("tf32").detail == "cuda:0 Fake GPU, CuPy 14.2.0, TF32"
    second = open_cuda("1:tf32")
    assert (second.index, second.tf32) == (1, True)
    assert not open_cuda("1").tf32


def test_index_out_of_range(cupy):
    assert reason("2") == 'there is no GPU 2: GPUs are numbered from 0, and the driver shows 2. Use "cuda".'


@pytest.mark.parametrize("name", ["x", "-1", "1.5", "²", "1:tf16", "tf32:1", ":"])
def test_not_a_number(name):
    assert reason(name) == f'\'{name}\' is not the number of a GPU. Use "cuda", "cuda:0", or "cuda:0:tf32".'
