"""What a CUDA kernel is specialised for."""

from __future__ import annotations

from dataclasses import dataclass

from gpunet_backends.array_api import Layout

TYPES = {
    "float32": "float",
    "float64": "double",
    "float16": "float16",
    "bfloat16": "bfloat16",
    "bool": "bool",
    "int8": "signed char",
    "int16": "short",
    "int32": "int",
    "int64": "long long",
    "uint8": "unsigned char",
    "uint16": "unsigned short",
    "uint32": "unsigned",
}
"""Data types that kernels read, as C++ types. uint64 is none: no type holds it and int64, too."""
BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
"""Data types of formulas."""


@dataclass(frozen=True)
class Variant:
    """What a kernel is specialised for besides the graph. Sizes are no part of it.

    types     data types of the operands
    in_place  for each output: the operand it replaces, or None
    strided   full operands whose rows lie apart
    vector    elements that a thread reads at once, 16 bytes of the narrowest type; 1 where rows are no multiple of it
    width     threads that share a row
    large     there are 2**31 elements or more
    """

    types: tuple[str, ...]
    in_place: Layout
    strided: frozenset[int]
    vector: int
    width: int = 32
    large: bool = False

    @property
    def storage(self) -> str:
        """The float type of outputs: the narrowest of the operands."""
        return min((t for t in self.types if t in BYTES), key=lambda t: BYTES[t])

    @property
    def real(self) -> str:
        """The C++ type of arithmetic."""
        return "double" if self.storage == "float64" else "float"
