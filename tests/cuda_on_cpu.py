"""CUDA kernels without a GPU: g++ compiles the very source that NVRTC would, and fibers run it (``cuda_shim/``).

It notices what makes a kernel wrong: reads and writes out of bounds (of ``guarded`` arrays and of shared memory),
misaligned vectors, barriers and exchanges that not all threads reach, shared memory and variables that are read before
they are written, arguments of another type; and most races, if results are compared in orders 0 and 1 and some seeds.
It cannot show speed, the rounding of the device's own functions, and races between blocks or finer than barriers. A
kernel that never ends is not stopped.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from functools import cache
from itertools import count
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

SHIM = Path(__file__).with_name("cuda_shim")
COMPILE = ("-std=c++17", "-fPIC", "-shared", "-fno-exceptions", "-ffp-contract=off", "-fno-strict-aliasing")
RUNTIME = ("-O2", "-U_FORTIFY_SOURCE")  # which would refuse to jump from one stack to another
KERNEL = ("-O0", "-nostdlib", "-fvisibility=hidden", "-fno-toplevel-reorder", "-fno-stack-protector")
"""Two kinds of softmax compile in 38 ms (2 cores, g++ 12), 59 with -O1, 90 with -O2, 24 being an empty kernel's. On
256 rows of 1000 they take 11 ms with a warp for each row and 108 with a block; 8 and 85 with -O1."""
LANGUAGE = ("-pedantic-errors", "-fmax-errors=3")
CHECKS = (
    "-ftrivial-auto-var-init=pattern",
    "-fsanitize=alignment,bounds-strict,shift,signed-integer-overflow,integer-divide-by-zero",  # 1 ms
    "-fsanitize-undefined-trap-on-error",
)
NAME = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\(([^),]*)[^)]*\)\s*)?(\w+)\s*\(')
MOST = {"grid": (2**31 - 1, 65535, 65535), "block": (1024, 1024, 64)}
MOST_SHARED = 48 << 10
MARGIN = 256  # bytes, as in cuda_cpu.h
KINDS = {"p": "a pointer", "i": "an integer", "f": "a floating-point number", "s": "a structure"}
UNREADABLE = 4 << 20
"""Bytes on either side of guarded arrays: what goes further astray changes other memory of this process."""
ASTRAY = {"float64": 0xFFF0, "float16": 0xFC00}
"""What lies in between, in 16-bit words: a signalling NaN of their type, else of float32 and bfloat16. Each array has
its own: what is copied or computed from there and written there is something else."""

_lock = threading.Lock()


class CudaError(RuntimeError):
    """A kernel that does not compile, a launch that a GPU would refuse, or a fault while it ran."""


# Compiling


@cache
def missing() -> str | None:
    """Why kernels cannot run on this CPU, or None."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        return f"it needs Linux on x86-64 or aarch64, this is {sys.platform} on {platform.machine()}"
    if shutil.which("g++") is None:
        return "there is no g++"
    version = compiler().split()[0]
    if not version.split(".")[0].isdecimal() or int(version.split(".")[0]) < 12:
        return f"it needs g++ 12 or newer, this is {version}"
    return None


@cache
def compiler() -> str:
    """The compiler's version and its target."""
    questions = ("-dumpfullversion", "-dumpmachine")
    return " ".join(subprocess.run(["g++", q], capture_output=True, text=True).stdout.strip() or "?" for q in questions)


@cache
def cache_folder() -> Path:
    """In GPUNET_CACHE_DIR, or else among the temporary files; a fresh folder if that one is not ours."""
    wanted = os.environ.get("GPUNET_CACHE_DIR")
    folder = Path(wanted) / "cuda-on-cpu" if wanted else Path(tempfile.gettempdir()) / f"gpunet-cuda-{os.getuid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if folder.stat().st_uid == os.getuid() and os.access(folder, os.W_OK):  # what it holds will be run
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="gpunet-cuda-"))


@cache
def shim(name: str) -> str:
    """A source file of the shim."""
    return (SHIM / name).read_text(encoding="utf-8")


def library(source: str, *options: str) -> Path:
    """A C++ source as a shared library: from the cache folder, or compiled now."""
    text = repr((source, options, COMPILE, shim("cuda_cpu.h"), compiler()))
    path = cache_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.so"
    if path.exists():
        return path
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    os.close(handle)
    try:
        files = (f"-I{SHIM}", f"-Wl,-soname,{path.name}", "-o", temporary, "-x", "c++", "-")
        command, environment = ["g++", *COMPILE, *files, *options], {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, input=source, capture_output=True, encoding="utf-8", env=environment)
        if done.returncode:
            raise CudaError(first_errors(done.stderr))
        os.replace(temporary, path)  # whole or not at all: other processes look for it, too
    finally:
        Path(temporary).unlink(missing_ok=True)
    return path


def first_errors(output: str) -> str:
    """The lines of a compiler's output that tell what is wrong."""
    lines = output.splitlines()
    return "\n".join([line for line in lines if " error: " in line] or lines[-3:])


@cache
def runtime() -> Path:
    """The library that runs kernels."""
    return library(shim("fiber.cpp"), *RUNTIME, "-x", "none", "-lm")


# Kernels


class Kernel(ctypes.Structure):
    """What ``cuda_cpu.h`` says about a kernel."""

    _fields_ = (
        ("call", ctypes.c_void_p),
        ("kinds", ctypes.c_char_p),
        ("sizes", ctypes.c_char_p),
        ("count", ctypes.c_int),
        ("most_threads", ctypes.c_int),
        ("shared", ctypes.c_void_p),
        ("shared_end", ctypes.c_void_p),
    )


class CpuModule:
    """The kernels of a source, compiled: ``cupy.RawModule`` for a CPU.

    Raises     CudaError with the compiler's first errors, at their lines of the source
    """

    def __init__(self, source: str):
        if missing():
            raise CudaError(f"kernels cannot run on this CPU: {missing()}")
        found = NAME.findall(source)
        if not found:
            raise CudaError('the source has no extern "C" __global__ void')
        # The namespace keeps __shared__ in templates and inline functions out of the linker's reach, which else could
        # not have them in one section with those of kernels.
        wrapped = ['#include "cuda_cpu.h"', "namespace {", '#line 1 "kernel.cu"', source, "}", "GPUNET_SHARED_END"]
        wrapped += [f"GPUNET_KERNEL({name}, {bound or MOST['block'][0]})" for bound, name in found]
        options = (*KERNEL, *LANGUAGE, *CHECKS, "-x", "none", str(runtime()), "-Wl,-rpath,$ORIGIN")
        path = library("\n".join(wrapped) + "\n", *options)
        try:
            loaded = ctypes.CDLL(str(path))
        except OSError as error:  # a function that is declared, but not defined
            raise CudaError(str(error)) from None
        self.kernels = {name: Kernel.in_dll(loaded, f"gpunet_{name}") for _, name in found}
        used = max(k.shared_end - k.shared for k in self.kernels.values()) - MARGIN
        if used > MOST_SHARED:
            raise CudaError(f"{used} bytes of shared memory: a block has {MOST_SHARED}")

    def launch(self, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], order: int = 0) -> None:
        """Run a kernel to its end.

        args       arrays (a pointer to the first element), NumPy scalars and ctypes values
        order      of blocks, warps and lanes: 0 forward, 1 backward, any other number shuffled with that seed
        Raises     CudaError with the kernel's name, what is wrong and, while it runs, where
        """
        if name not in self.kernels:
            raise CudaError(f"there is no kernel {name}, but {', '.join(self.kernels)}")
        kernel = self.kernels[name]
        try:
            sizes = (ctypes.c_uint * 6)(*extents("grid", grid), *extents("block", block))
            threads = prod(block)
            if threads > kernel.most_threads or threads % 32:
                raise CudaError(f"bad block {block}: a multiple of 32 threads, {kernel.most_threads} at most")
            held = arguments(kernel, args)
            pointers = (ctypes.c_void_p * len(held))(*map(ctypes.addressof, held))
            run = ctypes.CDLL(str(runtime())).gpunet_run
            run.restype = ctypes.c_char_p
            with _lock:
                error = run(ctypes.byref(kernel), sizes, pointers, order)
            if error:
                raise CudaError(error.decode())
        except CudaError as error:
            raise CudaError(f"{name}: {error}") from None


def extents(what: str, numbers: Sequence[int]) -> tuple[int, ...]:
    """Three numbers, as a GPU allows them for a grid or a block."""
    most = MOST[what]
    if not 1 <= len(numbers) <= 3 or not all(1 <= n <= m for n, m in zip(numbers, most, strict=False)):
        raise CudaError(f"bad {what} {numbers}: 1 to 3 numbers, from 1 to {most}")
    return (*numbers, 1, 1)[:3]


def arguments(kernel: Kernel, args: Sequence[Any]) -> list[Any]:
    """ctypes values of the types of the kernel's parameters: a GPU would read whatever lies there."""
    if len(args) != kernel.count:
        raise CudaError(f"{len(args)} arguments for {kernel.count} parameters")
    held = []
    for i, (value, kind, size) in enumerate(zip(args, kernel.kinds.decode(), kernel.sizes, strict=True)):
        holder, given = argument(value)
        if given != f"{kind}{size}" and (kind, given[1:]) != ("s", str(size)):
            raise CudaError(
                f"argument {i} is {KINDS[given[0]]} of {given[1:]} bytes, its parameter {KINDS[kind]} of {size} bytes"
            )
        held.append(holder)
    return held


def argument(value: Any) -> tuple[Any, str]:
    """A ctypes value, its kind and its size in bytes."""
    if isinstance(value, np.ndarray):
        value = ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, np.generic):
        kind = "f" if value.dtype.kind == "f" else "i"
        return ctypes.c_longlong.from_buffer_copy(value.tobytes().ljust(8, b"\0")), f"{kind}{value.itemsize}"
    code = getattr(value, "_type_", None)
    if not isinstance(code, str):
        raise CudaError(f"{value!r} has no type of C: pass an array, a NumPy scalar or a ctypes value")
    return value, {"P": "p", "f": "f", "d": "f"}.get(code, "i") + str(ctypes.sizeof(value))


# Arrays


_margins: dict[int, tuple[bytes, bytes]] = {}
_turn = count()


def guarded(array: np.ndarray) -> np.ndarray:
    """A copy in the midst of unreadable pages, aligned to 16 bytes; ``intact`` sees what was written close to it."""
    page, size = mmap.PAGESIZE, -(-array.nbytes // 16) * 16
    body = -(-size // page) * page
    memory = mmap.mmap(-1, UNREADABLE + body + UNREADABLE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    pages = np.frombuffer(memory, np.uint8)
    whole, start = pages[UNREADABLE : UNREADABLE + body], body - size
    whole.view(np.uint16)[:] = ASTRAY.get(array.dtype.name, 0xFF80) + 1 + next(_turn) % 7
    inside = whole[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    inside[...] = array
    address = inside.ctypes.data
    _margins[address] = whole[:start].tobytes(), whole[start + array.nbytes :].tobytes()
    weakref.finalize(memory, _margins.pop, address)
    mprotect = ctypes.CDLL(None, use_errno=True).mprotect
    for at in (0, UNREADABLE + body):
        if mprotect(ctypes.c_void_p(pages.ctypes.data + at), ctypes.c_size_t(UNREADABLE), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    return inside


def intact(*arrays: np.ndarray) -> bool:
    """Whether nothing was written around these guarded arrays."""
    for array in arrays:
        address = array.ctypes.data
        before, after = _margins[address]
        if ctypes.string_at(address - len(before), len(before)) != before:
            return False
        if ctypes.string_at(address + array.nbytes, len(after)) != after:
            return False
    return True
