"""Arrays of other libraries come in by DLPack. Small classes stand in for them; PyTorch's: test_dlpack_torch.py."""

import ml_dtypes
import numpy as np
import pytest
from fakegpu import Counts
from kit import beside

from gpunet.backend import place_of
from gpunet.errors import ArrayError, RecordingError
from gpunet.train.step import on_host

either = beside(__file__, "gpus.py").either
foreign = beside(__file__, "foreign.py")
Foreign, Gettable, Movable, Nowhere = foreign.Foreign, foreign.Gettable, foreign.Movable, foreign.Nowhere
OfGpu, Old, Refusing = foreign.OfGpu, foreign.Old, foreign.Refusing
CPU, CUDA, CUDA_HOST, METAL = foreign.CPU, foreign.CUDA, foreign.CUDA_HOST, foreign.METAL


@pytest.fixture
def gpu(fakegpu):
    backend = fakegpu()
    backend.cupy.reset()
    return backend


# From the CPU


@pytest.mark.parametrize("kind", [Foreign, Old])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
def test_an_array_on_the_cpu(backend, kind, dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    own = backend.asarray(kind(array))
    assert backend.owns(own)
    assert backend.to_numpy(own).dtype == dtype
    assert np.array_equal(backend.to_numpy(own), array)


@pytest.mark.parametrize("array", [np.arange(12.0).reshape(3, 4)[::2, 1:3], np.array(2.5), np.ones((0, 3))])
def test_it_may_be_strided_or_a_number_or_empty_and_is_cast(backend, array):
    own = backend.asarray(Foreign(array), "float32")
    assert backend.to_numpy(own).dtype == np.float32
    assert np.array_equal(backend.to_numpy(own), array)


def test_pinned_memory_is_the_cpus(backend):
    assert backend.to_numpy(backend.asarray(Foreign([1.0, 2.0], (CUDA_HOST, 1)))).tolist() == [1, 2]


def test_nothing_is_copied_on_the_host(backend):
    array = np.ones(3, np.float32)
    assert np.shares_memory(backend.host_array(Foreign(array), "float32"), array)


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_on_numpy_it_is_the_same_memory(cpu, dtype):
    array = np.ones(3, np.float32)
    own = cpu.asarray(Foreign(array), dtype)
    array[0] = 5
    assert own.tolist() == [5, 1, 1]


def test_on_a_gpu_it_is_uploaded_once(gpu):
    own = gpu.asarray(Foreign(np.ones(3)), "float32")
    assert gpu.cupy.counts == Counts(uploads=1)
    assert (gpu.owns(own), own.dtype) == (True, np.float32)


# From a GPU


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_an_array_on_the_same_gpu_is_the_same_memory(either, dtype):
    array = either.zeros((2, 3), "float32")
    given = OfGpu(array[:, 1:])
    own = either.asarray(given, dtype)
    assert either.owns(own)
    array[...] = 5
    assert either.to_numpy(own).tolist() == [[5, 5], [5, 5]]
    assert set(given.streams) == {1}  # the default stream: that library makes it wait for its own work
    assert either.asarray(given, "float64").dtype == np.float64


@pytest.mark.parametrize("kind", [CUDA, foreign.CUDA_MANAGED])
def test_a_gpu_has_nothing_to_do(gpu, kind):
    assert gpu.owns(gpu.asarray(Foreign(np.ones(3), (kind, 0))))
    assert gpu.cupy.counts == Counts()


def test_a_second_gpu_takes_what_is_there(fakegpu):
    """The current GPU stays what it was. Arrays of one fake are another library's to the next."""
    first, second = fakegpu(1, gpus=2), fakegpu(1, gpus=2)
    array = first.asarray([[1.0, 2.0]], "float32")
    own = second.asarray(array)
    assert (second.owns(own), own.device.id) == (True, 1)
    assert second.to_numpy(own).tolist() == [[1, 2]]
    assert second.cupy.cuda.runtime.getDevice() == 0
    with pytest.raises(ArrayError, match=r"takes arrays on the CPU or cuda:0, but got a fakegpu\.FakeArray on cuda:1"):
        fakegpu(gpus=2).asarray(array)


def test_nothing_of_another_library_is_recorded(gpu):
    with gpu.cupy.capturing(), pytest.raises(RecordingError, match="is another library's, which may free it while"):
        gpu.asarray(Foreign(np.ones(3), (CUDA, 0)))
    with gpu.cupy.capturing(), pytest.raises(RecordingError, match="an array is copied from the host"):
        gpu.asarray(Foreign(np.ones(3)))


# Refused


@pytest.mark.parametrize(
    ("kind", "move"),
    [(Foreign, r"numpy\.asarray\(x\)"), (Movable, r"x\.cpu\(\)"), (Gettable, r"x\.get\(\)")],
)
def test_another_gpus_arrays_are_refused(backend, kind, move):
    near = "the CPU or cuda:0" if backend.name == "cupy" else "the CPU"
    match = (
        rf"^{backend.name} takes arrays on {near}, but got a \S*\.{kind.__name__} on cuda:1\. "
        rf'Move it with {move}, or build the model with device="cuda:1"\.$'
    )
    with pytest.raises(ArrayError, match=match):
        backend.asarray(kind(np.ones(2), (CUDA, 1)))


def test_other_devices_are_refused(backend):
    with pytest.raises(ArrayError, match=r"but got a \S*\.Movable on metal:0\. Move it with x\.cpu\(\)\.$"):
        backend.asarray(Movable(np.ones(2), (METAL, 0)))


@pytest.mark.parametrize("error", [BufferError, RuntimeError, TypeError, NotImplementedError, AssertionError])
@pytest.mark.parametrize("device", [(CPU, 0), (CUDA, 0)])
def test_what_its_library_does_not_pass_on(backend, error, device):
    device = device if backend.name == "cupy" else (CPU, 0)
    match = (
        rf"^{backend.name} cannot take this \S*\.Refusing: Can't export tensors .* use tensor\.detach\(\)\. Pass "
        r"x\.detach\(\) if it has a gradient, x\.float\(\) if NumPy lacks its type, x\.to_dense\(\) if it is sparse"
    )
    with pytest.raises(ArrayError, match=match):
        backend.asarray(Refusing(error("Can't export tensors that require gradient, use tensor.detach()."), device))


def test_what_dlpack_has_no_type_for(backend):
    array = np.ones(2, ml_dtypes.bfloat16)  # NumPy cannot pass it on
    with pytest.raises(ArrayError, match=r"cannot take this \S*\.Foreign: .*x\.float\(\) if NumPy lacks its type"):
        backend.asarray(Foreign(array))
    assert backend.to_numpy(backend.asarray(array, "float32")).tolist() == [1, 1]


NO_NUMBERS = r"takes numbers, but got an array of complex64\. .*, and complex numbers into their parts\.$"


def test_what_is_no_number(backend):
    with pytest.raises(ArrayError, match=NO_NUMBERS):
        backend.asarray(Foreign(np.ones(2, np.complex64)), "float32")


def test_what_is_no_number_on_a_gpu(gpu):
    with pytest.raises(ArrayError, match=NO_NUMBERS):
        gpu.asarray(Foreign(np.ones(2, np.complex64), (CUDA, 0)), "float32")


def test_what_does_not_say_where_it_is(backend):
    match = r"^this \S*\.Nowhere does not say where it is: Unknown device type meta .*\. Convert it with numpy\.asarray"
    with pytest.raises(ArrayError, match=match):
        backend.asarray(Nowhere(np.ones(2)))


@pytest.mark.parametrize("x", [object(), "abc", {"a": 1}, Foreign, np.ndarray], ids=lambda x: type(x).__name__)
def test_what_is_neither(backend, x):
    with pytest.raises(ArrayError, match=r"takes NumPy arrays, numbers, lists and its own arrays, but got a built"):
        backend.asarray(x)


# Where an array is


@pytest.mark.parametrize(
    ("device", "place"),
    [
        ((1, 0), "cpu"),
        ((3, 1), "cpu"),
        ((11, 0), "cpu"),
        ((2, 1), "cuda:1"),
        ((13, 0), "cuda:0"),
        ((8, 0), "metal:0"),
        ((10, 2), "rocm:2"),
        ((14, 0), "oneapi:0"),
        ((99, 1), "DLPack device 99:1"),
    ],
)
def test_places(device, place):
    array = Foreign(np.ones(2), device)
    assert place_of(array) == place
    assert on_host(array) == (place == "cpu")


def test_no_place():
    assert place_of([1.0]) is place_of(2.5) is place_of(None) is place_of(Foreign) is None
    assert not on_host(None)
    assert on_host([1.0])
    assert on_host(np.ones(2))
