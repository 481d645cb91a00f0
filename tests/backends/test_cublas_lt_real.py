"""LtMatmul on the real library, which describes matrices without a GPU, and on a GPU, where there is one."""

import ctypes
import re
from ctypes import addressof, c_int64, c_size_t
from itertools import cycle, product
from pathlib import Path

import fake_cublas_lt
import numpy as np
import pytest
from fake_cublas_lt import ATTRIBUTES, PREFIX
from kit import beside

from gpunet.errors import DeviceError
from gpunet_backends import cublas_lt_library
from gpunet_backends.cublas_lt import LtMatmul
from gpunet_backends.cublas_lt_library import load

products = beside(__file__, "products.py")
LAYOUTS, ROUNDING, SHAPES = products.LAYOUTS, products.ROUNDING, products.SHAPES
agree, dtype_named, operands = products.agree, products.dtype_named, products.operands


@pytest.fixture
def fresh() -> LtMatmul:
    return products.opened()


# The real library, without a GPU


@pytest.fixture(scope="module")
def real():
    try:
        return load()
    except DeviceError as error:
        pytest.skip(f"not run on the real library: {error}")


def header_of(library) -> dict[str, int]:
    """The numbers in the headers that NVIDIA's packages have beside the library."""
    folder = Path(library._name).parent.parent / "include"
    files = [folder / name for name in ("cublasLt.h", "cublas_api.h")]
    if not all(file.exists() for file in files):
        pytest.skip(f"no headers in {folder}")
    texts = [file.read_text() for file in (*files, *folder.glob("library_types.h"))]
    return {name: int(n) for text in texts for name, n in re.findall(r"^\s*(CU\w+)\s*=\s*(\d+)\b", text, re.M)}


def test_numbers_are_those_of_the_headers(real):
    header = header_of(real)
    used = {name: n for name, n in vars(cublas_lt_library).items() if re.match("CUBLAS|CUDA_R", name)}
    faked = {PREFIX[kind] + name: n for kind, names in ATTRIBUTES.items() for name, (n, _) in names.items()}
    faked |= {f"CUDA_{name}": n for name, n in vars(fake_cublas_lt).items() if name.startswith("R_")}
    faked |= {f"CUBLAS_{name}": n for name, n in vars(fake_cublas_lt).items() if name.startswith("COMPUTE_")}
    assert {**used, **faked} == {**faked, **used}
    assert all(name in header for name in used | faked if name.startswith("CUBLAS"))
    for name, n in (used | faked).items():
        assert header.get(name, n) == n, name


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_sizes_are_those_of_the_library(kind, real):
    made, written = ctypes.c_void_p(), c_size_t()
    arguments = {"MatmulDesc": (68, 0), "MatrixLayout": (0, 2, 3, 4), "MatmulPreference": ()}[kind]
    getattr(real, f"cublasLt{kind}Create")(addressof(made), *arguments)
    for number, ctype in ATTRIBUTES[kind].values():
        status = getattr(real, f"cublasLt{kind}GetAttribute")(made, number, None, c_size_t(0), ctypes.byref(written))
        assert (status, written.value) == (0, ctypes.sizeof(ctype))
    with pytest.raises(RuntimeError, match=f"cublasLt{kind}SetAttribute failed with CUBLAS_STATUS_INVALID_VALUE"):
        getattr(real, f"cublasLt{kind}SetAttribute")(made.value, 1, addressof(c_int64(0)), 3)
    getattr(real, f"cublasLt{kind}Destroy")(made.value)


def test_the_library_takes_what_is_described(real, fresh):
    """Objects are the library's; where it needs a GPU, the fake has the same ones and compares."""
    fake, twins = fresh.lt, {}

    class Both:
        """Every object is made twice."""

        def __getattr__(self, name):
            if not re.search("Create|SetAttribute|Destroy", name) or name == "cublasLtCreate":
                return getattr(fake, name)

            def call(first, *rest):
                if name.endswith("Create"):
                    pointer = ctypes.c_void_p()
                    getattr(real, name)(addressof(pointer), *rest)
                    getattr(fake, name)(first, *rest)
                    twins[ctypes.c_uint64.from_address(first).value] = pointer.value
                else:
                    getattr(real, name)(twins[first], *rest)
                    getattr(fake, name)(first, *rest)

            return call

        def cublasLtMatmulAlgoGetHeuristic(self, handle, *rest):
            for thing in rest[:6]:
                kind, attributes = fake.objects[thing]
                for name, (number, ctype) in ATTRIBUTES[kind].items():
                    value = ctype()
                    get = getattr(real, f"cublasLt{kind}GetAttribute")
                    place = ctypes.c_void_p(twins[thing]), number, ctypes.byref(value), c_size_t(ctypes.sizeof(value))
                    assert get(*place, None) == 0
                    assert value.value == attributes[name], (kind, name)
            fake.cublasLtMatmulAlgoGetHeuristic(handle, *rest)

    both = LtMatmul(fresh.cupy, Both())
    for name in ("float64", "float32", "float16"):
        for shapes in (SHAPES["plain"], SHAPES["batched"], SHAPES["one a"]):
            hosts = operands(shapes, name)
            for made in (("contiguous", "transposed"), ("part of columns", "part of rows")):
                a, b = (LAYOUTS[lies](fresh.cupy, host) for lies, host in zip(made, hosts, strict=True))
                agree(both.matmul(a, b), *hosts)
    assert fake.heuristics == 18
    assert len(twins) == 18 * 5


# A GPU


@pytest.fixture
def gpu(cuda):
    return LtMatmul(cuda.cupy, load())


@pytest.mark.cuda
@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("dtype", ROUNDING)
def test_results_on_a_gpu(shapes, dtype, gpu):
    hosts = operands(shapes, dtype_named(dtype))
    shape = (*np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2]), shapes[0][-2], shapes[1][-1])
    start = operands([shape], hosts[0].dtype, seed=1)[0]
    targets = cycle(("contiguous", "part of rows", "every second number", "transposed"))
    for made in product(LAYOUTS.values(), repeat=2):
        a, b = (make(gpu.cupy, host) for make, host in zip(made, hosts, strict=True))
        before = a.get(), b.get()
        agree(gpu.matmul(a, b), *before)
        out = LAYOUTS[next(targets)](gpu.cupy, start)
        agree(gpu.matmul(a, b, out, accumulate=True), *before, start)
        agree(gpu.matmul(a, b, out), *before)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_large_products_on_a_gpu(dtype, gpu):
    """Large enough for algorithms that split sums and use the workspace."""
    for shapes in (((512, 300), (300, 256)), ((64, 8192), (8192, 48)), ((33, 1000), (1000, 7))):
        a, b = operands(shapes, dtype)
        y = gpu.matmul(gpu.cupy.asarray(a), gpu.cupy.asarray(b))
        agree(y, a, b)
        again = gpu.matmul(gpu.cupy.asarray(a), gpu.cupy.asarray(b))
        np.testing.assert_array_equal(y.get(), again.get())


@pytest.mark.cuda
def test_tf32_on_a_gpu(cuda):
    a, b = operands([(256, 512), (512, 256)], np.float32)
    errors = []
    for tf32 in (False, True):
        one = LtMatmul(cuda.cupy, load(), tf32=tf32)
        y = one.matmul(cuda.asarray(a), cuda.asarray(b)).get()
        errors.append(abs(y - a.astype(np.float64) @ b).max() / abs(a @ b).max())
    assert errors[0] < 2e-6
    assert errors[1] < 2e-3


@pytest.mark.cuda
def test_uninitialised_results_on_a_gpu(gpu):
    a = gpu.cupy.ones((64, 64), "float32")
    out = gpu.cupy.full((64, 64), np.nan, "float32")
    gpu.matmul(a, a, out)
    assert (out.get() == 64).all()


@pytest.mark.cuda
def test_capture_on_a_gpu(gpu):
    cupy, (a, b) = gpu.cupy, operands([(64, 48), (48, 40)], np.float32)
    xs, out = [cupy.asarray(x) for x in (a, b)], cupy.zeros((64, 40), "float32")
    gpu.matmul(*xs, out, accumulate=True)
    out.fill(0)
    pool, stream = cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.Device().synchronize()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        stream.begin_capture()
        gpu.matmul(*xs, out, accumulate=True)
        graph = stream.end_capture()
        assert not out.get().any()  # captured, not run
        graph.launch()
        graph.launch()
        stream.synchronize()
    agree(out, a, b, a @ b)
    with stream:
        stream.begin_capture()
        with pytest.raises(RuntimeError, match="cannot begin while the stream is captured"):
            gpu.matmul(xs[1].T, xs[0].T)
        stream.end_capture()
