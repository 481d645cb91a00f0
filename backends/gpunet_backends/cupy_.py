"""CuPy on NVIDIA GPUs: formulas run as expressions, matrix products through CuPy."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from gpunet.backend import Array, Shape
from gpunet.errors import DeviceError
from gpunet_backends.array_api import ArrayAPIBackend

INSTALL = 'pip install "gpunet[cuda13]" (driver 580 or newer) or "gpunet[cuda12]"'


class CupyBackend(ArrayAPIBackend):
    """One GPU.

    cupy   the module, or one that behaves like it
    xp     its array-API namespace
    index  number of the GPU
    """

    def __init__(self, cupy: Any, xp: Any, index: int = 0):
        self.cupy, self._gpu = cupy, cupy.cuda.Device(index)
        with self._gpu:
            super().__init__(xp, None, "cupy")
        self.index, self.device = index, self._gpu
        name = cupy.cuda.runtime.getDeviceProperties(index)["name"].decode()
        self.detail = f"cuda:{index} {name}, CuPy {cupy.__version__}"

    def quiet(self) -> AbstractContextManager[Any]:
        """Launches go to this GPU; there are no floating-point warnings on it."""
        gpu: AbstractContextManager[Any] = self._gpu
        return gpu

    def owns(self, x: Any) -> bool:
        """Is x a CuPy array on this GPU?"""
        return type(x) is self._array_type and int(x.device.id) == getattr(self, "index", int(x.device.id))

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Host array, number, list or own array -> array on this GPU."""
        with self._gpu:
            if self.owns(x):
                return x if dtype is None or x.dtype == dtype else x.astype(dtype)
            return self.cupy.asarray(self.host_array(x), dtype=dtype)

    def to_numpy(self, x: Array) -> Any:
        """Copy to the host; synchronises."""
        return self.cupy.asnumpy(x)

    def empty(self, shape: Shape, dtype: str) -> Array:
        """Uninitialised array."""
        with self._gpu:
            return self.cupy.empty(shape, dtype)

    def zeros(self, shape: Shape, dtype: str) -> Array:
        """Array of zeros."""
        with self._gpu:
            return self.cupy.zeros(shape, dtype)

    def scalar(self, value: float, dtype: str) -> Array:
        """0-d operand."""
        with self._gpu:
            return self.cupy.asarray(value, dtype=dtype)

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
            if out is None or accumulate:
                product = self.cupy.matmul(a, b)
                if out is None:
                    return product
                out += product
            else:
                self.cupy.matmul(a, b, out=out)
        return out


def open_cuda(device: str | None) -> CupyBackend:
    """The "cuda[:N]" device. Usable means that a small matrix product ran and gave the right number."""
    if device is not None and not device.isdigit():
        raise DeviceError(f'\'{device}\' is not the number of a GPU. Use "cuda" or "cuda:0".')
    try:
        import cupy
    except ImportError as error:
        if error.name == "cupy":
            raise DeviceError(f'CuPy is not installed. Run: {INSTALL}, or use device="cpu".') from None
        raise DeviceError(f'CuPy cannot be imported: {error}. Run: {INSTALL}, or use device="cpu".') from error
    index = int(device or 0)
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        reason = "no NVIDIA driver or GPU found" if "NoDevice" in str(error) or "Driver" in str(error) else str(error)
        raise DeviceError(f'{reason} ({error}). Install the driver, or use device="cpu".') from error
    if index >= count:
        raise DeviceError(f'there is no GPU {index}; the number found is {count}. Use "cuda:0".')
    import array_api_compat.cupy as xp

    try:
        backend = CupyBackend(cupy, xp, index)
        smoke = backend.to_numpy(backend.gemm(backend.asarray([[1.0, 2.0]]), backend.asarray([[3.0], [4.0]])))
    except DeviceError:
        raise
    except Exception as error:  # CuPy reports missing libraries by many types
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
        raise DeviceError(
            f'a small matrix product failed with {reason}. Run: {INSTALL}, or use device="cpu".'
        ) from error
    if float(smoke[0, 0]) != 11.0:
        raise DeviceError(f'a small matrix product gave {smoke[0, 0]} instead of 11. Use device="cpu".')
    return backend
