"""Compiled kernels of a GPU: from source by NVRTC, through CuPy."""

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
"""For NVRTC. No fast math: infinities, NaN, subnormal numbers and division are part of a formula's meaning."""


class Kernels:
    """Compiled kernels of one GPU, shared by all formulas."""

    def __init__(self, cupy: Any):
        self.cupy = cupy
        self._made: dict[Any, tuple[CudaSource, Callable[[str], Any]]] = {}

    def compile(self, stage: Stage, variant: Variant) -> tuple[CudaSource, Callable[[str], Any]]:
        """The source of a stage's kernel, and its functions by name. It is written to the cache folder for people to
        read; the machine code is in CuPy's own.
        """
        key = (stage.graph.key, stage.rows, tuple(n >= stage.own for n in stage.outputs), variant)
        if key not in self._made:
            source = emit(stage, variant)
            digest = hashlib.sha256(source.text.encode()).hexdigest()[:12]
            with suppress(OSError):  # a full disk
                cache.write(cache.folder("cuda") / f"{source.name}_{digest}.cu", source.text)
            module = self.cupy.RawModule(code=source.text, options=OPTIONS)
            self._made[key] = (source, module.get_function)
        return self._made[key]

    def sources(self) -> list[str]:
        """The CUDA sources of all kernels so far."""
        return [source.text for source, _ in self._made.values()]
