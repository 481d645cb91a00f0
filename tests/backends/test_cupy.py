"""CupyBackend on the fake GPU: every member."""

import numpy as np
import pytest
from fakegpu import Counts, open_fakegpu

from gpunet.errors import ArrayError, DeviceMemoryError
from gpunet_backends.cupy_ import CupyBackend


@pytest.fixture
def gpu() -> CupyBackend:
    backend = open_fakegpu()
    backend.cupy.reset()
    return backend


@pytest.fixture
def second() -> CupyBackend:
    """The second of two GPUs, while the first is the current one."""
    backend = open_fakegpu(1, gpus=2)
    backend.cupy.reset()
    return backend


def test_identity(gpu, second):
    assert (gpu.name, gpu.index, gpu.device.id) == ("cupy", 0, 0)
    assert (second.detail, second.device.id) == ("cuda:1 Fake GPU, CuPy 14.2.0", 1)


# Moving and making data


@pytest.mark.parametrize("x", [np.arange(6.0).reshape(2, 3), [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]])
def test_asarray_copies_once(gpu, x):
    y = gpu.asarray(x, "float32")
    assert gpu.cupy.counts == Counts(uploads=1)
    assert gpu.owns(y)
    assert y.dtype == np.float32
    assert gpu.to_numpy(y).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert gpu.cupy.counts == Counts(uploads=1, downloads=1, synchronisations=1)


def test_asarray_is_no_view_of_host_memory(gpu):
    x = np.ones(3)
    y = gpu.asarray(x)
    x[:] = 2
    assert gpu.to_numpy(y).tolist() == [1, 1, 1]


def test_asarray_keeps_own_arrays(gpu):
    x = gpu.zeros((2,), "float32")
    assert gpu.asarray(x) is gpu.asarray(x, "float32") is x
    assert gpu.asarray(x, "float64").dtype == np.float64


def test_asarray_takes_another_librarys_array(gpu):
    """One fake's array is that to another. More in test_dlpack.py."""
    x = open_fakegpu().zeros((2,), "float32")
    assert not gpu.owns(x)
    assert gpu.owns(gpu.asarray(x))
    assert gpu.cupy.counts == Counts()


def test_asarray_refuses_what_is_no_array(gpu):
    with pytest.raises(ArrayError, match=r"takes NumPy arrays, numbers, lists and its own arrays, but got a builtins"):
        gpu.asarray(object())


def test_asarray_names_the_other_gpu(second):
    x = second.cupy.zeros((2,))
    assert not second.owns(x)
    with pytest.raises(
        ArrayError, match=r"got an array that is on cuda:0\. Move it with device\.asarray\(x\.get\(\)\)"
    ):
        second.asarray(x)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32", "int64", "bool"])
def test_making(gpu, dtype):
    for x in (gpu.empty((2, 3), dtype), gpu.zeros((2, 3), dtype)):
        assert (x.shape, x.dtype) == ((2, 3), np.dtype(dtype))
    assert not gpu.to_numpy(gpu.zeros((2, 3), dtype)).any()
    s = gpu.scalar(1, dtype)
    assert (s.shape, s.dtype, s.item()) == ((), np.dtype(dtype), 1)


def test_a_scalar_is_not_copied(gpu):
    gpu.scalar(0.25, "float32")
    assert gpu.cupy.counts == Counts(launches=1, scalars=1)


def test_owns(gpu):
    assert gpu.owns(gpu.scalar(1.0, "float32"))
    for x in (np.ones(2), 1.0, [1.0], None, open_fakegpu().zeros((2,), "float32")):
        assert not gpu.owns(x)


def test_synchronize(gpu):
    gpu.synchronize()
    assert gpu.cupy.counts == Counts(synchronisations=1)


# Matrix products


SHAPES = {
    "plain": ((4, 3), (3, 5)),
    "batched": ((2, 4, 3), (2, 3, 5)),
    "broadcast": ((2, 4, 3), (3, 5)),
    "deep": ((2, 3, 4, 3), (2, 3, 3, 5)),
    "one": ((1, 3), (3, 1)),
    "no_rows": ((0, 3), (3, 5)),
    "no_terms": ((4, 0), (0, 5)),
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("into", ["fresh", "out", "accumulate"])
def test_gemm(gpu, shapes, transpose_a, transpose_b, into):
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(shape) for shape in shapes)
    product = np.einsum("...ik,...kj->...ij", a, b)
    start = rng.standard_normal(product.shape)
    ga = gpu.asarray(a.swapaxes(-1, -2) if transpose_a else a)
    gb = gpu.asarray(b.swapaxes(-1, -2) if transpose_b else b)
    out = None if into == "fresh" else gpu.asarray(start)
    gpu.cupy.reset()
    y = gpu.gemm(ga, gb, transpose_a=transpose_a, transpose_b=transpose_b, out=out, accumulate=into == "accumulate")
    nothing = product.size == 0 or (into == "accumulate" and a.shape[-1] == 0)
    assert gpu.cupy.counts == Counts(launches=0 if nothing else 1)
    assert out is None or y is out
    expected = product + start if into == "accumulate" else product
    np.testing.assert_allclose(gpu.to_numpy(y), expected, rtol=1e-12, atol=1e-12)


def test_gemm_writes_into_a_view(gpu):
    store = gpu.zeros((20,), "float32")
    a, b = gpu.asarray([[1, 2]], "float32"), gpu.asarray([[3, 4]], "float32")
    gpu.gemm(a, b, transpose_a=True, out=gpu.cupy.reshape(store[8:12], (2, 2)))
    assert gpu.to_numpy(store).tolist() == [0] * 8 + [3, 4, 6, 8] + [0] * 8


def test_gemm_reads_views(gpu):
    x = gpu.asarray(np.arange(24.0).reshape(4, 6))
    host = gpu.to_numpy(x)
    y = gpu.gemm(x[::2, 1:4], x[1:3, ::2], transpose_b=True)
    assert gpu.to_numpy(y).tolist() == (host[::2, 1:4] @ host[1:3, ::2].T).tolist()


# Formulas


def shift(xp, x, b):
    return xp.where(x > 0, x, 0.0) + b, xp.exp(x)


def test_fuse(gpu):
    x, b = gpu.asarray([[-1.0, 2.0]], "float32"), gpu.asarray([1.0, 1.0], "float32")
    fused = gpu.fuse(shift)
    y, e = fused(x, b, out=(x, None))
    assert y is x
    assert gpu.to_numpy(y).tolist() == [[1, 3]]
    np.testing.assert_allclose(gpu.to_numpy(e), np.exp([[-1.0, 2.0]]), rtol=1e-6)


def test_fuse_neither_copies_nor_waits(gpu):
    x, b = gpu.zeros((2, 2), "float32"), gpu.zeros((2,), "float32")
    fused = gpu.fuse(shift)
    with gpu.cupy.capturing():
        fused(x, b, out=(x, None))


# A second GPU


def test_every_member_works_on_its_own_gpu(second):
    x = second.asarray([[-1.0, 2.0], [3.0, 4.0]], "float32")
    made = [x, second.asarray(x, "float64"), second.empty((2,), "float32"), second.scalar(1, "int64")]
    made.append(second.zeros((2, 2), "float32"))
    made.append(second.gemm(x, x, transpose_a=True, out=made[-1]))
    made.append(second.gemm(x, x, out=made[-1], accumulate=True))
    made += second.fuse(shift)(x, second.zeros((2,), "float32"), out=(x, None))
    assert [y.device.id for y in made] == [1] * len(made)
    assert second.to_numpy(x).tolist() == [[0, 2], [3, 4]]
    assert second.cupy.cuda.runtime.getDevice() == 0  # the caller's is as it was


# Too little memory


def test_too_little_memory_has_a_remedy(gpu):
    def work():
        with gpu.scope():
            raise gpu.cupy.cuda.memory.OutOfMemoryError(
                "Out of memory allocating 8,000,000,000 bytes (allocated so far)"
            )

    match = r"cuda:0 Fake GPU, .* has too little memory: Out of memory allocating 8,000,000,000 bytes \(.*accumulate=2"
    with pytest.raises(DeviceMemoryError, match=match) as caught:
        work()
    assert isinstance(caught.value, MemoryError)
    assert gpu.cupy.stack == []


def test_a_step_that_needs_too_much_memory(gpu, monkeypatch):
    """The error says what to do; with a smaller batch the step goes on."""
    from gpunet import TrainStep, layers, losses, optim

    model = layers.Sequential(layers.Dense(4)).build((3,), device=gpu)
    step = TrainStep(model, losses.CrossEntropy(), optim.SGD(0.1))
    empty = gpu.cupy.empty

    def limited(shape, dtype, **options):
        if np.prod(shape) > 100:
            raise gpu.cupy.cuda.memory.OutOfMemoryError("Out of memory allocating 512 bytes")
        return empty(shape, dtype, **options)

    monkeypatch.setattr(gpu.cupy, "empty", limited, raising=False)
    gpu._products.new_workspace = lambda stream: 256
    x, y = np.ones((64, 3), np.float32), np.zeros(64, np.int32)
    with pytest.raises(DeviceMemoryError, match="Use smaller batches"):
        step(x, y)
    assert step.steps == 0
