"""The library cuBLASLt: the numbers and functions of its C interface that are used here.

It is called by ctypes: a dozen functions whose interface has not changed since CUDA 11. nvmath-python 1.0 has bindings,
but its import takes 0.25 s and 136 MB, and its installation 74 MB; it would save 0.9 µs a call.
"""

from __future__ import annotations

import ctypes
from ctypes import c_int, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any

from gpunet.errors import DeviceError

CUDA_R_32F, CUDA_R_64F, CUDA_R_16F, CUDA_R_16BF = 0, 1, 2, 14
CUBLAS_COMPUTE_32F, CUBLAS_COMPUTE_64F, CUBLAS_COMPUTE_32F_FAST_TF32 = 68, 70, 77
CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB = 3, 4
CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET = 5, 6
CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK = 1, 3
CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES = 5, 8
CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE = 2

TYPES = {  # of the operands, of the sums, of the factors 1 and 0
    "float64": (CUDA_R_64F, CUBLAS_COMPUTE_64F, CUDA_R_64F),
    "float32": (CUDA_R_32F, CUBLAS_COMPUTE_32F, CUDA_R_32F),
    "float16": (CUDA_R_16F, CUBLAS_COMPUTE_32F, CUDA_R_32F),
    "bfloat16": (CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F),
}
KINDS = {"MatmulDesc": (c_int, c_int), "MatrixLayout": (c_int, c_uint64, c_uint64, c_int64), "MatmulPreference": ()}
FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "Create": (c_void_p,),
    "MatmulAlgoGetHeuristic": (*(c_void_p,) * 7, c_int, c_void_p, c_void_p),
    "Matmul": (*(c_void_p,) * 14, c_size_t, c_void_p),
    **{f"{kind}Create": (c_void_p, *parameters) for kind, parameters in KINDS.items()},
    **{f"{kind}SetAttribute": (c_void_p, c_int, c_void_p, c_size_t) for kind in KINDS},
    **{f"{kind}Destroy": (c_void_p,) for kind in KINDS},
}
"""Parameters by name, less the prefix cublasLt. All return a status, 0 for success."""


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t. It begins with the algorithm, so its address is the algorithm's."""

    _fields_ = (("algo", c_uint64 * 8), ("workspace", c_size_t), ("state", c_int), ("more", c_int * 5))


def load() -> Any:
    """The library, for ``LtMatmul``. Needs no GPU.

    Raises
        DeviceError: with reason and remedy in one line.
    """
    from gpunet_backends.cupy_ import INSTALL, first_line

    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib  # it comes with CuPy

        return bind(ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path))
    except Exception as error:
        missing = type(error).__name__ == "DynamicLibNotFoundError"
        reason = "is missing" if missing else f"cannot be loaded: {first_line(error)}"
        raise DeviceError(f'the CUDA library cublasLt {reason}. Run: {INSTALL}, or use device="cpu".') from error


def bind(library: Any) -> Any:
    """Declare the functions of a library; a status that is not 0 raises RuntimeError."""
    library.cublasLtGetStatusName.restype = ctypes.c_char_p

    def check(status: int, function: Any, arguments: Any) -> None:
        if status:
            raise RuntimeError(f"{function.__name__} failed with {library.cublasLtGetStatusName(status).decode()}")

    for name, parameters in FUNCTIONS.items():
        function = getattr(library, f"cublasLt{name}")
        function.argtypes, function.restype, function.errcheck = parameters, c_int, check
    return library
