"""The fake GPU behaves as its documentation says; the facts are CuPy 14.2's."""

import numpy as np
import pytest
from array_api_compat import array_namespace, device, to_device
from fakegpu import Counts, CUDARuntimeError, FakeCupy, open_fakegpu


@pytest.fixture
def cupy() -> FakeCupy:
    return FakeCupy()


@pytest.fixture
def x(cupy):
    x = cupy.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    cupy.reset()
    return x


def test_runs_the_real_backend():
    backend = open_fakegpu()
    assert type(backend).__module__ == "gpunet_backends.cupy_"
    assert backend.name == "cupy"
    assert backend.detail == "cuda:0 Fake GPU, CuPy 14.2.0"


@pytest.mark.parametrize("convert", [np.asarray, np.array, np.sum, lambda x: np.add(x, 1), lambda x: np.ones(3) + x])
def test_numpy_gets_no_hold_of_it(x, convert):
    with pytest.raises(TypeError):
        convert(x)
    assert x._cupy.counts == Counts()


@pytest.mark.parametrize(
    "mix", [lambda x, a: x + a, lambda x, a: a * x, lambda x, a: x.__iadd__(a), lambda x, a: x < a]
)
def test_numpy_arrays_do_not_mix(x, mix):
    with pytest.raises(TypeError, match=r"Unsupported type <class 'numpy\.ndarray'>"):
        mix(x, np.ones(3, np.float32))


def test_storing_a_numpy_array_is_refused(x):
    with pytest.raises(ValueError, match=r"non-scalar numpy\.ndarray cannot be used for fill"):
        x[0] = np.ones(3)
    x[0] = 7
    assert x._cupy.asnumpy(x).tolist() == [[7, 7, 7], [3, 4, 5]]


def test_scalars_mix(x):
    assert (x + 1).dtype == (2.5 * x).dtype == (np.float32(2) * x).dtype == np.float32
    assert (x * np.float64(2)).dtype == np.float64  # NumPy scalars have a type, Python's have not
    assert x._cupy.counts == Counts(launches=4)  # they are arguments of the kernel: nothing is copied


def test_fakes_do_not_mix(x):
    with pytest.raises(TypeError, match="Unsupported type"):
        x + FakeCupy().zeros((3,), "float32")


def test_reductions_stay_arrays(cupy, x):
    total = cupy.sum(x)
    assert type(total) is cupy.ndarray
    assert total.shape == (total + total).shape == (x[0, 0]).shape == ()
    assert cupy.counts == Counts(launches=2)


@pytest.mark.parametrize(
    "read", [float, int, bool, repr, str, lambda x: x.item(), lambda x: f"{x:.1f}", lambda x: x.get()]
)
def test_reading_on_the_host_copies_and_waits(cupy, read):
    x = cupy.zeros((), "float32")
    cupy.reset()
    read(x)
    assert cupy.counts == Counts(downloads=1, synchronisations=1)


def test_if_reads_each_time(cupy, x):
    assert x[1, 2] > 0 and x[0, 1] > 0  # noqa: PT018
    assert cupy.counts == Counts(launches=2, downloads=2, synchronisations=2)


def test_no_index_no_hash_no_masks(x):
    with pytest.raises(TypeError):
        range(x._cupy.asarray(3))
    with pytest.raises(TypeError, match="unhashable"):
        hash(x)
    with pytest.raises(NotImplementedError, match="a mask would synchronise"):
        x[x > 1]
    with pytest.raises(AttributeError, match="no 'nonzero'"):
        x._cupy.nonzero(x)


def test_host_data(cupy):
    cupy.asarray(np.ones(3))
    cupy.asarray([[1.0, 2.0]], dtype="float32")
    assert cupy.counts == Counts(uploads=2)
    cupy.reset()
    cupy.asarray(0.5, dtype="float32"), cupy.asarray(np.array(3))
    assert cupy.counts == Counts(launches=2, scalars=2)
    assert cupy.values == [0.5, 3]


def test_own_data_is_not_copied(cupy, x):
    assert cupy.asarray(x) is x
    assert cupy.asarray(x, dtype="float32") is x.astype("float32", copy=False) is x
    assert cupy.counts == Counts()
    assert cupy.asarray(x, dtype="float64") is not x
    assert cupy.asarray(x, copy=True) is not x
    assert cupy.counts == Counts(launches=2)


@pytest.mark.parametrize(
    "view",
    [
        lambda xp, x: x[1:],
        lambda xp, x: x[0, 0],
        lambda xp, x: x.T,
        lambda xp, x: x.mT,
        lambda xp, x: x.swapaxes(0, 1),
        lambda xp, x: x.reshape(3, 2),
        lambda xp, x: xp.reshape(x, (-1,)),
        lambda xp, x: xp.matrix_transpose(x),
        lambda xp, x: xp.broadcast_to(x, (4, 2, 3)),
        lambda xp, x: next(iter(x)),
    ],
)
def test_views_launch_nothing(cupy, x, view):
    assert np.may_share_memory(view(cupy, x)._data, x._data)
    assert cupy.counts == Counts()


def test_views_write_through(cupy, x):
    x[0, 1][...] = 9
    cupy.reshape(x[1:], (3,))[1:] *= 2
    x[1, :1] += x[0, :1]
    assert cupy.asnumpy(x).tolist() == [[0, 9, 2], [3, 8, 10]]
    assert cupy.counts == Counts(launches=3, downloads=1, synchronisations=1)  # storing x[i] in itself is nothing


def test_launches(cupy, x):
    y = x
    y += x
    assert y is x
    assert cupy.counts == Counts(launches=1)
    y = cupy.exp(x) * x - x  # three
    x.T.reshape(6), x.copy(), x.astype("float64")  # a copy each
    cupy.where(x > 0, x, y), cupy.max(x, axis=-1, keepdims=True), x @ x.T
    assert cupy.counts == Counts(launches=11)
    cupy.zeros((0, 3)) + 1, cupy.empty((2,))
    assert cupy.counts == Counts(launches=11)  # nothing for nothing


def test_out(cupy, x):
    out = cupy.empty((2, 2), "float32")
    assert cupy.matmul(x, x.T, out=out) is out
    assert cupy.asnumpy(out).tolist() == [[5, 14], [14, 50]]


def test_in_place_keeps_the_type(cupy):
    with pytest.raises(TypeError, match="same_kind"):
        cupy.zeros((2,), "int32").__iadd__(1.5)


def test_array_api_compat_knows_it(cupy, x):
    assert array_namespace(x) is cupy
    assert device(x) == cupy.cuda.Device(0)
    assert type(to_device(x, "cpu")) is np.ndarray


def test_only_the_standards_names(cupy):
    assert (cupy.float32, cupy.bool, cupy.inf) == (np.float32, np.bool, np.inf)
    with pytest.raises(AttributeError, match="fakegpu has no 'einsum'"):
        cupy.einsum  # noqa: B018


def test_no_floating_point_warnings(cupy):
    x = cupy.zeros((2,), "float32")
    assert np.isnan(cupy.asnumpy(cupy.log(x) - cupy.log(x) + 1 / x)).all()


def test_devices_nest():
    cupy = FakeCupy(gpus=2)
    zero, one = cupy.cuda.Device(0), cupy.cuda.Device(1)
    with one, zero, one:
        with one:
            assert cupy.zeros((2,)).device == cupy.cuda.Device() == one
        assert cupy.cuda.runtime.getDevice() == 1
    assert cupy.cuda.runtime.getDevice() == 0
    with pytest.raises(CUDARuntimeError, match="invalid device ordinal"), cupy.cuda.Device(2):
        pass


def test_work_on_another_gpus_array_is_refused():
    cupy = FakeCupy(gpus=2)
    with cupy.cuda.Device(1):
        x = cupy.zeros((2, 2), "float32")
    assert x[0].T.device.id == 1  # a view needs no device
    for work in (lambda: x + 1, lambda: x.fill(0), lambda: x.__iadd__(1), lambda: x.__setitem__(0, 1), x.copy):
        with pytest.raises(ValueError, match=r"resides \(1\) is different from the current device \(0\)"):
            work()
    assert cupy.asnumpy(x).shape == cupy.asarray(x).shape == (2, 2)
    assert cupy.asarray(x).device.id == 0


@pytest.mark.parametrize(
    "act",
    [
        lambda xp, x: xp.asarray(np.ones(2)),
        lambda xp, x: xp.asnumpy(x),
        lambda xp, x: float(x[0, 0]),
        lambda xp, x: bool(x[0, 0]),
        lambda xp, x: repr(x),
        lambda xp, x: xp.cuda.Device(0).synchronize(),
    ],
)
def test_capture_refuses_copies_and_waiting(cupy, x, act):
    with cupy.capturing(), pytest.raises(RuntimeError, match="stream is capturing"):
        act(cupy, x)
    assert cupy.counts == Counts()
    act(cupy, x)  # allowed again


def test_capture_takes_kernels(cupy, x):
    with cupy.capturing():
        y = cupy.exp(x) + 1
        y[0] = cupy.sum(y, axis=0)
        cupy.asarray(0.5)  # passed to a kernel: a graph would repeat it
    assert cupy.counts == Counts(launches=5, scalars=1)


def test_empty_memory_is_poisoned(cupy):
    assert np.isnan(cupy.asnumpy(cupy.empty((3,), "float32"))).all()
