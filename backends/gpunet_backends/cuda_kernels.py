"""Compiled kernels of a GPU: from source by NVRTC, kept in the cache folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from gpunet_backends import cache
from gpunet_backends.cuda_emit import CudaSource, emit
from gpunet_backends.cuda_stages import Stage
from gpunet_backends.cuda_variant import Variant

OPTIONS = ("-std=c++17",)
"""For NVRTC. No fast math: infinities, NaN, subnormal numbers and division are part of a formula's meaning. CuPy's own
RawModule would add -ftz=true, which flushes subnormal numbers to zero."""


class Kernels:
    """Compiled kernels of one GPU, shared by all formulas."""

    def __init__(self, cupy: Any):
        self.cupy, self.nvrtc = cupy, cupy.cuda.nvrtc
        self._made: dict[Any, tuple[CudaSource, Callable[[str], Any]]] = {}

    def compile(self, stage: Stage, variant: Variant) -> tuple[CudaSource, Callable[[str], Any]]:
        """The source of a stage's kernel, and its functions by name."""
        key = (stage.graph.key, tuple(n >= stage.own for n in stage.outputs), variant)
        if key not in self._made:
            source = emit(stage, variant)
            self._made[key] = (source, self._loaded(source))
        return self._made[key]

    def functions(self, source: CudaSource) -> Callable[[str], Any]:
        """The functions of a source that was written by hand, by name."""
        if source not in self._made:
            self._made[source] = (source, self._loaded(source))
        return self._made[source][1]

    def _loaded(self, source: CudaSource) -> Callable[[str], Any]:
        module = self.cupy.cuda.Module()
        module.load(self.code(source))
        return module.get_function  # type: ignore[no-any-return]

    def sources(self) -> list[str]:
        """The CUDA sources of all kernels so far."""
        return [source.text for source, _ in self._made.values()]

    def code(self, source: CudaSource) -> bytes:
        """Machine code, from the cache folder or compiled now; the source is put beside it, for people to read."""
        goal = target(self.nvrtc.getSupportedArchs(), int(self.cupy.cuda.Device().compute_capability))
        version = "-".join(map(str, self.nvrtc.getVersion()))
        digest = hashlib.sha256(repr((source.text, OPTIONS)).encode()).hexdigest()[:12]
        path = cache.folder(f"cuda-{version}-{goal}") / f"{source.name}_{digest}.cubin"
        if path.exists():
            return path.read_bytes()
        code, _ = compiled(self.nvrtc, source.text, goal)
        with suppress(OSError):  # a full disk
            cache.write(path.with_suffix(".cu"), source.text.encode())
            cache.write(path, code)
        return code


def target(supported: list[int], capability: int) -> str:
    """What to compile for: this GPU; or, if NVRTC is older, code that the driver compiles for it."""
    if capability in supported:
        return f"sm_{capability}"
    return f"compute_{max(a for a in supported if a <= capability)}"


def compiled(nvrtc: Any, text: str, goal: str, *options: str) -> tuple[bytes, str]:
    """Machine code for sm_<n>, PTX for compute_<n>; and what the compiler says.

    Raises     RuntimeError: the source has an error.
    """
    program = nvrtc.createProgram(text, "kernel.cu", (), ())
    try:
        nvrtc.compileProgram(program, (*OPTIONS, f"-arch={goal}", *options))
        code = nvrtc.getCUBIN(program) if goal.startswith("sm_") else nvrtc.getPTX(program)
        return code, nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError as error:
        raise RuntimeError(f"NVRTC cannot compile a kernel: {nvrtc.getProgramLog(program)}") from error
    finally:
        nvrtc.destroyProgram(program)
