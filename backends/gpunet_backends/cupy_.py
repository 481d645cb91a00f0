"""CuPy on NVIDIA GPUs: formulas run as CUDA kernels, matrix products through cuBLASLt."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager
from typing import Any

from gpunet.backend import Array, Shape, place_of
from gpunet.errors import ArrayError, DeviceError, DeviceMemoryError, RecordingError
from gpunet.formula import Formula, dtype_name
from gpunet_backends import cuda_rows
from gpunet_backends.array_api import HOST_TYPES, ArrayAPIBackend, Fused, numpy_type
from gpunet_backends.cublas_lt import LtMatmul
from gpunet_backends.cublas_lt_library import load
from gpunet_backends.cuda_ import CudaFused
from gpunet_backends.cuda_graph import Recorder
from gpunet_backends.cuda_kernels import Kernels

INSTALL = 'pip install "gpunet[cuda13]" (driver 580 or newer) or "gpunet[cuda12]"'
INSUFFICIENT_DRIVER, NO_DEVICE = 35, 100
"""Numbers of CUDA errors."""


class CupyBackend(ArrayAPIBackend):
    """One GPU.

    CuPy launches on the thread's current GPU, whichever one the arrays are on; so each member makes its own current.

    cupy   the module, or one that behaves like it
    xp     its array-API namespace
    lt     the library cuBLASLt
    index  number of the GPU
    tf32   products of float32 matrices in the tensor cores' 19-bit format, with float32 sums
    """

    def __init__(self, cupy: Any, xp: Any, lt: Any, index: int = 0, *, tf32: bool = False):
        self.cupy, self.index, self.tf32, self._gpu = cupy, index, tf32, cupy.cuda.Device(index)
        self.near = f"the CPU or cuda:{index}"
        with self._gpu:
            super().__init__(xp, None, "cupy")
            self._products = LtMatmul(cupy, lt, tf32=tf32)
        self.device, self.kernels = self._gpu, Kernels(cupy)
        name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
        self.detail = f"cuda:{index} {name}, CuPy {cupy.__version__}" + ", TF32" * tf32

    @property
    def driver(self) -> str:
        """Versions of the CUDA driver and runtime."""
        runtime = self.cupy.cuda.runtime
        numbers = runtime.driverGetVersion(), runtime.runtimeGetVersion()
        return "driver {}.{}, runtime {}.{}".format(*(part for n in numbers for part in (n // 1000, n % 1000 // 10)))

    def scope(self) -> AbstractContextManager[Any]:
        """Launches go to this GPU, and CuPy's error for too little memory is gpunet's, with a remedy."""
        return _Scope(self)

    def owns(self, x: Any) -> bool:
        """Is x a CuPy array on this GPU?"""
        return type(x) is self._array_type and bool(x.device.id == self.index)

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Host array, number, list, own array, or another library's on the CPU or this GPU -> array on this GPU."""
        with self._gpu:
            own = x if self.owns(x) else self._shared(x)
            if own is not None:
                return own if dtype is None or dtype_name(own.dtype) == dtype else own.astype(numpy_type(dtype))
            array = self.host_array(x, dtype)
            if array.ndim and self._is_capturing():
                raise RecordingError("an array is copied from the host, whose numbers a recording would repeat.")
            return self.cupy.asarray(array)

    def _shared(self, x: Any) -> Array | None:
        """Another library's array on this GPU as an own one, in the same memory; None: it is something else."""
        here = f"cuda:{self.index}"
        if isinstance(x, HOST_TYPES) or type(x) is self._array_type or place_of(x) != here:
            return None
        if self._is_capturing():
            raise RecordingError("an array is another library's, which may free it while a recording still reads it.")
        array = self.from_dlpack(x, here, self.cupy.from_dlpack)
        if array.dtype.kind == "c":
            raise self.no_numbers(array)
        return array

    def _is_capturing(self) -> bool:
        return bool(self.cupy.cuda.get_current_stream().is_capturing())

    def host_array(self, x: Any, dtype: str | None = None) -> Any:
        """What ``asarray`` accepts besides own arrays; an array of another GPU is refused."""
        if type(x) is self._array_type:
            raise ArrayError(
                f"{self.detail} got an array that is on cuda:{x.device.id}. Move it with device.asarray(x.get())."
            )
        return super().host_array(x, dtype)

    def to_numpy(self, x: Array) -> Any:
        """Copy to the host; synchronises."""
        return self.cupy.asnumpy(x)

    def empty(self, shape: Shape, dtype: str) -> Array:
        """Uninitialised array."""
        with self._gpu:
            return self.cupy.empty(shape, numpy_type(dtype))

    def zeros(self, shape: Shape, dtype: str) -> Array:
        """Array of zeros."""
        with self._gpu:
            return self.cupy.zeros(shape, numpy_type(dtype))

    def data_type(self, name: str) -> Any:
        """CuPy's data types are NumPy's."""
        return numpy_type(name)

    def scalar(self, value: float, dtype: str) -> Array:
        """0-d operand: CuPy fills it by a kernel that gets the number as an argument, so nothing is copied."""
        with self._gpu:
            return self.cupy.asarray(value, dtype=numpy_type(dtype))

    def fuse(self, formula: Formula) -> Fused:
        """A formula that becomes CUDA kernels on its first call."""
        return CudaFused(self, formula)

    def recorder(self) -> Recorder:
        """For work that shall be one CUDA graph."""
        with self._gpu:
            return Recorder(self.cupy, self._products)

    def synchronize(self) -> None:
        """Wait for the GPU."""
        self._gpu.synchronize()

    def gemm(
        self,
        a: Array,
        b: Array,
        *,
        transpose_a: bool = False,
        transpose_b: bool = False,
        out: Array | None = None,
        accumulate: bool = False,
    ) -> Array:
        """Matrix product of the last two axes."""
        a = a.swapaxes(-1, -2) if transpose_a else a
        b = b.swapaxes(-1, -2) if transpose_b else b
        with self._gpu:
            return self._products.matmul(a, b, out, accumulate)

    def gather_rows(self, table: Array, index: Array) -> Array:
        """Rows of a table; NaN for an index out of range."""
        out = self.empty((*index.shape, table.shape[1]), dtype_name(table.dtype))
        with self._gpu:
            cuda_rows.gather(self.kernels, out, dense(table), dense(index))
        return out

    def scatter_add_rows(self, out: Array, index: Array, rows: Array) -> None:
        """By one warp for each index that occurs, and in order: no atomics, so the sums are the same bits each time."""
        with self._gpu:
            target = dense(out)
            cuda_rows.scatter_add(self.kernels, target, dense(index), dense(rows))
            if target is not out:
                out[...] = target


def dense(array: Array) -> Array:
    """With elements one behind the other."""
    return array if array.flags.c_contiguous else array.copy()


class _Scope:
    """The GPU as the current one."""

    def __init__(self, backend: CupyBackend):
        self.backend = backend

    def __enter__(self) -> None:
        self.backend.device.__enter__()

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.backend.device.__exit__(kind, error, trace)
        if isinstance(error, self.backend.cupy.cuda.memory.OutOfMemoryError):
            raise DeviceMemoryError(
                f"{self.backend.detail} has too little memory: {first_line(error)}. Use smaller batches, or "
                'TrainStep(accumulate=2), which runs a batch in parts; dtype="mixed_bfloat16" halves what layers keep.'
            ) from error


def open_cuda(device: str | None) -> CupyBackend:
    """The "cuda[:N][:tf32]" device. Usable means that a small matrix product ran and gave the right numbers.

    Raises
        DeviceError: with reason and remedy in one line.
    """
    number, tf32 = parse(device)
    try:
        import cupy
        import array_api_compat.cupy as xp  # isort: skip
    except Exception as error:  # a broken installation raises many types
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            raise DeviceError(f'CuPy is not installed. Run: {INSTALL}, or use device="cpu".') from None
        raise DeviceError(
            f'CuPy cannot be imported: {first_line(error)}. Reinstall it: {INSTALL}, or use device="cpu".'
        ) from error
    count, index = count_gpus(cupy), number
    if index >= count:
        raise DeviceError(
            f'there is no GPU {index}: GPUs are numbered from 0, and the driver shows {count}. Use "cuda".'
        )
    try:
        backend = CupyBackend(cupy, xp, load(), index, tf32=tf32)
        numbers = smoke(backend)
    except DeviceError:
        raise
    except Exception as error:  # CuPy reports missing libraries by many types
        raise DeviceError(explain(error)) from error
    if numbers != [[12.0, 12.0], [26.0, 28.0]]:
        raise DeviceError(f'a small computation on cuda:{index} gave wrong numbers, {numbers}. Use device="cpu".')
    return backend


def parse(device: str | None) -> tuple[int, bool]:
    """ "1:tf32" -> (1, True); the number of the GPU is 0 if it is missing."""
    parts = (device or "0").split(":")
    tf32 = parts[-1] == "tf32"
    number = ":".join(parts[: len(parts) - tf32]) or "0"
    if not (number.isascii() and number.isdecimal()):
        raise DeviceError(f'\'{device}\' is not the number of a GPU. Use "cuda", "cuda:0", or "cuda:0:tf32".')
    return int(number), tf32


def count_gpus(cupy: Any) -> int:
    """How many GPUs the driver shows; at least one, or DeviceError says why there is none."""
    runtime = cupy.cuda.runtime
    try:
        count = int(runtime.getDeviceCount())
    except Exception as error:
        if getattr(error, "status", None) != NO_DEVICE:
            raise DeviceError(explain_start(runtime, error)) from error
        count = 0
    if count == 0:
        raise DeviceError(
            "the driver shows no NVIDIA GPU. Check nvidia-smi and the variable CUDA_VISIBLE_DEVICES, "
            'or use device="cpu".'
        )
    return count


def explain_start(runtime: Any, error: Exception) -> str:
    """Why CUDA does not start. Its error is the same without a driver and with one that is too old."""
    if getattr(error, "status", None) != INSUFFICIENT_DRIVER:
        return f'CUDA does not start: {first_line(error)}. Check nvidia-smi, or use device="cpu".'
    driver, needed = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if driver == 0:
        return 'no NVIDIA driver found. Install one, or use device="cpu".'
    return (
        f"the NVIDIA driver is too old: it offers CUDA {version(driver)}, and this CuPy needs {version(needed)}. "
        f'Update the driver, install the CuPy for it, {INSTALL}, or use device="cpu".'
    )


def smoke(backend: CupyBackend) -> Any:
    """A product, then a formula of it, as host numbers: [[12, 12], [26, 28]]. Synchronises.

    The product needs cuBLASLt, the formula NVRTC.
    """
    a, b = backend.asarray([[1, 2], [3, 4]], "float32"), backend.asarray([[1, 2], [2.5, 2]], "float32")
    return backend.to_numpy(backend.fuse(_twice)(backend.gemm(a, b))).tolist()


def _twice(xp: Any, x: Array) -> Array:
    return x + x


def explain(error: Exception) -> str:
    """Why a small computation failed, and what to do."""
    missing = re.search(r"\blib(\w+)\.so|\b(\w+?)(?:64)?(?:_\d+)*\.dll", str(error))
    if missing:
        library = missing[1] or missing[2]
        return f'the CUDA library {library} is missing. Run: {INSTALL}, or use device="cpu".'
    return (
        f"a small computation failed with {type(error).__name__}: {first_line(error)}. "
        'Check nvidia-smi and the installation of CuPy, or use device="cpu".'
    )


def first_line(error: Exception) -> str:
    """The line of an error that says what happened; CuPy's import error has it at the end of a page."""
    text = str(error).partition("Original error:")[2] or str(error)
    lines = [line.strip(" =.") for line in text.splitlines()]
    return next((line for line in lines if line), type(error).__name__)


def version(number: int) -> str:
    """12080 -> 12.8"""
    return f"{number // 1000}.{number % 1000 // 10}"
