"""What open_cuda says when a GPU cannot be used. The errors' texts are those of CuPy 14.2 and CUDA 13."""

import sys

import pytest
from fakegpu import CUDARuntimeError, FakeCupy

import gpunet as gn
from gpunet.errors import DeviceError
from gpunet_backends.cupy_ import open_cuda


@pytest.fixture
def cupy(monkeypatch) -> FakeCupy:
    """``import cupy`` finds a fake."""
    fake = FakeCupy(gpus=2)
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "array_api_compat.cupy", fake)
    return fake


def failing(error: Exception):
    def fail(*args, **kwargs):
        raise error

    return fail


INSUFFICIENT = "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
NO_DEVICE = "cudaErrorNoDevice: no CUDA-capable device is detected"
NVRTC = 'Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: libnvrtc.so.13 or libnvrtc.so.12\n'
CUBLAS = 'Failure finding "libcublasLt.so.13 or libcublasLt.so.12": No such file: libcublasLt.so.13\n'
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


@pytest.mark.parametrize(
    ("member", "error", "library"),
    [
        ("full", RuntimeError(NVRTC), "nvrtc"),
        ("matmul", ImportError(CUBLAS), "cublasLt"),
        ("matmul", RuntimeError("CuPy failed to load cublas64_13.dll: FileNotFoundError: Could not find it"), "cublas"),
    ],
)
def test_missing_libraries(cupy, member, error, library):
    setattr(cupy, member, failing(error))
    assert reason() == (
        f'the CUDA library {library} is missing. Run: pip install "gpunet[cuda13]" (driver 580 or newer) or '
        '"gpunet[cuda12]", or use device="cpu".'
    )


def test_other_failures(cupy):
    cupy.matmul = failing(MemoryError("Out of memory allocating 512 bytes.\nmore"))
    assert reason().startswith(
        "a small computation failed with MemoryError: Out of memory allocating 512 bytes. Check nvidia-smi"
    )


def test_wrong_numbers(cupy):
    cupy.matmul = lambda a, b, out=None: cupy.zeros((2, 2), "float32")
    assert reason() == ('a small computation on cuda:0 gave wrong numbers, [[0.0, 0.0], [0.0, 0.0]]. Use device="cpu".')


def test_index_out_of_range(cupy):
    assert reason("2") == 'there is no GPU 2: GPUs are numbered from 0, and the driver shows 2. Use "cuda".'


@pytest.mark.parametrize("name", ["x", "-1", "1.5", "²"])
def test_not_a_number(name):
    assert reason(name) == f'\'{name}\' is not the number of a GPU. Use "cuda" or "cuda:0".'


def test_the_smoke_test_calls_cublas(cupy, monkeypatch):
    """CuPy computes 1x1 results without cuBLAS, so those prove nothing."""
    shapes = []
    matmul = cupy.matmul
    cupy.matmul = lambda a, b, out=None: shapes.append((a.shape, b.shape)) or matmul(a, b, out=out)
    open_cuda(None)
    assert shapes == [((2, 2), (2, 2))]
