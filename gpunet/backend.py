"""The whole shim between gpunet and array libraries: the Backend protocol and the registry of devices.

A backend is found by the entry-point group ``gpunet.backends``: the entry's name is the device kind ("cpu", "cuda",
"torch", ...), its value a function ``open(device: str | None) -> Backend`` that raises DeviceError with reason and
remedy when the device cannot be used. Entry points are read on first use, not at import.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from gpunet.errors import ArrayError, DeviceError

Array: TypeAlias = Any
"""An array of the backend's namespace."""
Shape: TypeAlias = tuple[int, ...]


class Fused(Protocol):
    """One fused formula. Hold on to it: it caches a plan per call signature."""

    def __call__(self, *operands: Array, out: Any = None) -> Any:
        """Run the formula. ``out``: None, an array, or a tuple with None for a fresh array.

        An ``out`` entry is an array that shares no memory with the operands, or one of the operands itself, passed as
        the same object: then the result is stored in place.
        """


class Recorder(Protocol):
    """Records work of a device, to be launched as a whole."""

    def record(self, work: Callable[..., Array], inputs: Sequence[Array]) -> Callable[..., Array]:
        """``work(*inputs)`` with one result, recorded but not run. It must have run before on ``placed`` inputs.

        -> a function of such inputs, all on the device or all on the host: it copies them to where the work reads them,
        launches the work, and returns its result as a fresh array, without waiting. All else that the work reads and
        writes it finds where it was.

        Raises what the work raises, and what the device says if it cannot record it.
        """

    def placed(self, inputs: Sequence[Any]) -> list[Array]:
        """Inputs of the host or the device, on the device and laid out as those of recorded work."""


class Backend(Protocol):
    """What gpunet asks of an array library beyond the array-API standard's functions, which go through ``xp``."""

    name: str
    device: Any
    xp: Any

    def asarray(self, x: Any, dtype: str | None = None) -> Array:
        """Host array, number, list, own array or, by DLPack, another library's -> own array; the only way in.

        Another library's is taken without a copy from the same device, and uploaded from the CPU.

        Raises
            ArrayError: it is on another device, or neither an array nor numbers.
        """

    def to_numpy(self, x: Array) -> Any:
        """Own array -> host array, which may share memory on a CPU; synchronises."""

    def empty(self, shape: Shape, dtype: str) -> Array:
        """Uninitialised array."""

    def zeros(self, shape: Shape, dtype: str) -> Array:
        """Array of zeros."""

    def scalar(self, value: float, dtype: str) -> Array:
        """0-d operand for a value that changes between steps."""

    def owns(self, x: Any) -> bool:
        """Is x an array of this backend and device?"""

    def synchronize(self) -> None:
        """Wait until all work queued on the device is done."""

    def scope(self) -> AbstractContextManager[Any]:
        """Around a stretch of work: the device is the current one, floating-point warnings are off."""

    def fuse(self, formula: Any) -> Fused:
        """Prepare a formula; it is traced on its first call."""

    def recorder(self) -> Recorder | None:
        """What makes one launch of much work, such as a training step; None where launches cost little."""

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
        """Matrix product of the last two axes, batched over leading ones; ``accumulate`` adds to ``out``."""

    def gather_rows(self, table: Array, index: Array) -> Array:
        """(n, k), int32 (…) -> table[index] (…, k); rows of NaN for what is out of range."""

    def scatter_add_rows(self, out: Array, index: Array, rows: Array) -> None:
        """(n, k), int32 (…), (…, k): out[i] += row for each index i and its row, in order; not if i is out of range."""


class Host(Backend, Protocol):
    """The NumPy backend, which also serves files and host random numbers."""

    def load(self, path: Any) -> Mapping[str, Array]:
        """Arrays of an .npz file by name, or of an .npy file as {"": array}."""

    def save(self, path: Any, arrays: Mapping[str, Array]) -> None:
        """Write an .npz file."""

    def load_tensors(self, path: Any) -> tuple[dict[str, str], dict[str, Array]]:
        """Metadata and arrays of a .safetensors file.

        Raises     OSError: it cannot be read.   FileError: it is no such file, or not whole.
        """

    def save_tensors(self, path: Any, metadata: Mapping[str, str], arrays: Mapping[str, Array]) -> None:
        """Write a .safetensors file whole or not at all: whoever reads it finds the old one or the new one."""

    def normal(self, seed: int, path: str, shape: Shape) -> Array:
        """Standard normal float64 numbers, keyed by (seed, path, shape)."""

    def uniform(self, seed: int, path: str, shape: Shape) -> Array:
        """Uniform float64 numbers in [0, 1), keyed by (seed, path, shape)."""

    def permutation(self, seed: int, path: str, n: int) -> Array:
        """A random order of range(n), keyed by (seed, path, n)."""


@dataclass(frozen=True)
class DeviceInfo:
    """One row of ``gpunet devices``."""

    name: str
    usable: bool
    detail: str


PLACES = {1: "cpu", 2: "cuda", 3: "cpu", 8: "metal", 10: "rocm", 11: "cpu", 13: "cuda", 14: "oneapi"}
"""Names of DLPack's device types. Pinned memory of the host (3, 11) is the CPU's, managed memory (13) the GPU's."""


def place_of(x: Any) -> str | None:
    """Where an array of any library is, such as "cpu" or "cuda:1"; None: it is no array that DLPack passes on."""
    ask = getattr(type(x), "__dlpack_device__", None)
    if ask is None:
        return None
    try:
        kind, number = ask(x)
    except Exception as error:  # each library has its own
        raise ArrayError(
            f"this {type(x).__module__}.{type(x).__name__} does not say where it is: {error}. Convert it with "
            "numpy.asarray(x) first."
        ) from error
    place = PLACES.get(kind, f"DLPack device {kind:d}")
    return place if place == "cpu" else f"{place}:{number}"


_lock = threading.RLock()
_opened: dict[str, Backend] = {}
_live: list[weakref.ref[Backend]] = []
"""Backends in use, oldest first. One that was made by hand goes, with its memory, when its last user does."""


def _entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points

    found = {entry.name: entry for entry in entry_points(group="gpunet.backends")}
    if not found:
        raise DeviceError(
            "gpunet is not installed: the entry-point group 'gpunet.backends' is empty. Run: pip install gpunet"
        )
    return found


def register(backend: Backend) -> Backend:
    """Let ``of`` find a backend that was made by hand; ``device`` does it for those it opens."""
    _live[:] = [known for known in _live if known() is not None]
    if not any(known() is backend for known in _live):
        _live.append(weakref.ref(backend))
    return backend


def _open(name: str) -> Backend:
    if name in _opened:
        return _opened[name]
    with _lock:
        return _opened[name] if name in _opened else _open_new(name)


def _open_new(name: str) -> Backend:
    kind, _, which = name.partition(":")
    entries = _entry_points()
    if kind not in entries:
        known = ", ".join(["auto", *sorted(entries)])
        raise DeviceError(f"device '{name}' is unknown. Use one of: {known}. See: gpunet devices")
    try:
        backend: Backend = entries[kind].load()(which or None)
    except DeviceError as error:
        raise DeviceError(f"device '{name}' is not usable: {error} See: gpunet devices") from error
    except ImportError as error:
        raise DeviceError(
            f"device '{name}' is not usable: its backend cannot be imported ({error}). Reinstall it. "
            "See: gpunet devices"
        ) from error
    _opened[name] = backend
    return register(backend)


def device(name: str | Backend = "auto") -> Backend:
    """The backend for a device name; a Backend passes through.

    "auto" is the value of GPUNET_DEVICE if that is set, else "cuda" where a GPU is usable, else "cpu". Others are
    "cpu", "cuda[:N][:tf32]", and any entry point with its own device after a colon, such as "torch:mps".

    Raises
        DeviceError: the name is unknown, or the device cannot be used; the message says why and what to do.
    """
    if not isinstance(name, str):
        return register(name)
    if name != "auto":
        return _open(name)
    wanted = os.environ.get("GPUNET_DEVICE", "auto")
    if wanted not in ("", "auto"):
        return _open(wanted)
    try:
        return _open("cuda")
    except DeviceError:
        return _open("cpu")


def devices() -> list[DeviceInfo]:
    """Every known device kind: whether it is usable here, and what it is or why it is not."""
    rows = []
    for kind in sorted(_entry_points()):
        try:
            backend = _open(kind)
        except DeviceError as error:
            reason = str(error).removeprefix(f"device '{kind}' is not usable: ").removesuffix(" See: gpunet devices")
            rows.append(DeviceInfo(kind, False, reason))
        else:
            rows.append(DeviceInfo(kind, True, str(getattr(backend, "detail", backend.name))))
    return rows


def host() -> Host:
    """The NumPy backend, for files, shuffling, initial weights and metrics."""
    backend: Any = _open("cpu")
    return backend  # type: ignore[no-any-return]


def of(array: Array) -> Backend:
    """The newest backend that owns an array: for calls without a context, such as ``loss(out, y)``."""
    for known in reversed(_live):
        backend = known()
        if backend is not None and backend.owns(array):
            return backend
    if host().owns(array):
        return host()
    raise ArrayError(
        f"no backend in use owns this {type(array).__name__}. Convert it with device.asarray(x), "
        'where device = gpunet.device("auto")'
    )
