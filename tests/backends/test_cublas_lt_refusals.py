"""What LtMatmul refuses, and what it leaves to CuPy."""

import gc
import re
import sys
from types import SimpleNamespace

import fake_cublas_lt
import numpy as np
import pytest
from kit import beside

from gpunet.errors import DeviceError, ShapeError
from gpunet_backends.cublas_lt import LtMatmul
from gpunet_backends.cublas_lt_library import load

products = beside(__file__, "products.py")
operands = products.operands


@pytest.fixture
def fresh() -> LtMatmul:
    return products.opened()


@pytest.mark.parametrize(
    "shapes", [((2, 3), (4, 5)), ((3,), (3, 5)), ((2, 3), (3,)), ((2, 2, 3), (3, 3, 5)), ((), (3, 5)), ((0, 3), (4, 0))]
)
def test_shapes_that_do_not_fit(shapes, fresh):
    a, b = (fresh.cupy.zeros(shape, "float32") for shape in shapes)
    message = f"needs leading axes that broadcast, but got {shapes[0]} and {shapes[1]}. Reshape one."
    with pytest.raises(ShapeError, match=re.escape(message)):
        fresh.matmul(a, b)


@pytest.mark.parametrize("shape", [(4, 4), (5, 4), (1, 4, 5), (4,), (0, 5)])
def test_a_result_that_does_not_fit(shape, fresh):
    a, b = (fresh.cupy.zeros(s, "float32") for s in ((4, 3), (3, 5)))
    out = fresh.cupy.ones(shape, "float32")
    for accumulate in (False, True):
        with pytest.raises(ValueError, match=re.escape(f"is (4, 5), but out is {shape}. Pass out of that shape.")):
            fresh.matmul(a, b, out, accumulate)
    assert (out.get() == 1).all()


@pytest.mark.parametrize("types", [("int32", "int32"), ("int64", "float64"), ("float32", "float64")])
def test_other_types_go_to_cupy(types, fresh):
    a, b = (fresh.cupy.asarray(x, t) for x, t in zip(operands([(4, 3), (3, 5)], np.float64), types, strict=True))
    y = fresh.matmul(a, b)
    want = a.get() @ b.get()
    assert y.dtype == want.dtype
    out = fresh.cupy.ones(want.shape, want.dtype)
    fresh.matmul(a, b, out, accumulate=True)
    np.testing.assert_allclose(out.get(), want + 1)
    assert fresh.matmul(a, b, out) is out
    for result in (y, out):
        np.testing.assert_array_equal(result.get(), want)
    assert fresh.lt.products == []


@pytest.mark.parametrize(("found", "message"), [((0, 0), "0 found"), ((1, 15), "1 found, the first has status 15")])
def test_no_algorithm(found, message, fresh):
    a, b = (fresh.cupy.zeros(s, "float32") for s in ((4, 3), (3, 5)))
    fresh.lt.algorithms = found
    message = re.escape("cuBLASLt has no algorithm for (4, 3) times (3, 5) in float32: ") + message
    with pytest.raises(RuntimeError, match=message):
        fresh.matmul(a, b)
    fresh.lt.algorithms = (1, 0)
    fresh.matmul(a, b)


def test_a_search_that_fails(fresh, monkeypatch):
    def fail(*arguments):
        fake_cublas_lt.fail("MatmulAlgoGetHeuristic", "NOT_SUPPORTED")

    monkeypatch.setattr(fresh.lt, "cublasLtMatmulAlgoGetHeuristic", fail, raising=False)
    a = fresh.cupy.zeros((2, 2), "float32")
    with pytest.raises(RuntimeError, match=r"\(2, 2\) times \(2, 2\) in float32: .* CUBLAS_STATUS_NOT_SUPPORTED"):
        fresh.matmul(a, a)
    gc.collect()
    assert [x.kind for x in fresh.lt.objects.values()] == ["Handle"]  # nothing is left behind


class DynamicLibNotFoundError(RuntimeError):
    """cuda.pathfinder's."""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (DynamicLibNotFoundError("libcublasLt.so.13"), r"the CUDA library cublasLt is missing\. Run: pip install "),
        (OSError("bad magic\nnumber"), r"the CUDA library cublasLt cannot be loaded: bad magic\. Run: pip install "),
    ],
)
def test_a_library_that_is_missing(error, message, monkeypatch):
    def find(name):
        assert name == "cublasLt"
        raise error

    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", SimpleNamespace(load_nvidia_dynamic_lib=find))
    with pytest.raises(DeviceError, match=message + r'"gpunet.*, or use device="cpu"\.$'):
        load()
