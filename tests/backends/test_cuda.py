"""What only a real NVIDIA GPU can show. The suites of formulas, layers, losses and optimizers run there as well."""

import warnings
from contextlib import suppress

import numpy as np
import pytest
from kit import beside, draw, error

from gpunet import layers, losses, optim
from gpunet.train.step import TrainStep

gpus = beside(__file__, "gpus.py")
either, tensor_cores, fetch, put = gpus.either, gpus.tensor_cores, gpus.fetch, gpus.put

SHAPE = (64, 48)
X, B = draw(0, *SHAPE).astype(np.float32), draw(1, SHAPE[1]).astype(np.float32)


def gelu(xp, x, b):
    return 0.5 * x * (1 + xp.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))) + b


def model_on(backend, dtype):
    model = layers.Sequential(
        layers.Dense(32), layers.ReLU(), layers.Dropout(0.2), layers.Dense(16), layers.Tanh(), layers.Dense(4)
    )
    model.build((SHAPE[1],), device=backend, dtype=dtype)
    return model


LABELS = np.random.default_rng(2).integers(0, 4, SHAPE[0]).astype(np.int32)


# The same numbers as on the CPU


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize(
    "shapes", [((64, 48), (48, 40)), ((3, 8, 48), (3, 48, 5)), ((1, 48), (48, 1)), ((0, 8), (8, 4))]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gemm_agrees_with_numpy(shapes, transpose_a, transpose_b, dtype, either):
    a, b = (draw(i, *shape).astype(dtype) for i, shape in enumerate(shapes))
    product = a.astype(np.float64) @ b.astype(np.float64)
    ga = either.asarray(a.swapaxes(-1, -2) if transpose_a else a)
    gb = either.asarray(b.swapaxes(-1, -2) if transpose_b else b)
    flags = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    out = either.zeros(product.shape, dtype)
    tolerance = 2e-6 if dtype == "float32" else 1e-13  # TF32 would be 1e-3
    assert error(either.to_numpy(either.gemm(ga, gb, **flags)), product) <= tolerance
    assert error(either.to_numpy(either.gemm(ga, gb, out=out, **flags)), product) <= tolerance
    assert error(either.to_numpy(either.gemm(ga, gb, out=out, accumulate=True, **flags)), 2 * product) <= tolerance


def test_first_gradients_agree_with_numpy(either, cpu):
    gradients = []
    for backend in (either, cpu):
        model = model_on(backend, "float32")
        TrainStep(model, losses.CrossEntropy(), optim.SGD(0.0), seed=7)(X, LABELS)
        gradients.append(model.get_gradients())
    for name, g in gradients[1].items():
        assert error(gradients[0][name], g) <= 2e-6, name


def test_a_training_run_agrees_with_numpy(either, cpu):
    """200 steps with dropout, clipping and Adam in float64, all but two of them launches of a graph."""
    weights, values = [], []
    for backend in (either, cpu):
        model = model_on(backend, "float64")
        step = TrainStep(model, losses.CrossEntropy(), optim.Adam(1e-3), clip_norm=1.0, seed=7)
        values.append([float(backend.to_numpy(step(X, LABELS))) for _ in range(200)])
        weights.append(model.get_weights())
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert values[0][-1] < 0.5 * values[0][0]
    for name, w in weights[1].items():
        assert error(weights[0][name], w) <= 1e-9, name


# What the fake GPU claims about CuPy


def test_claims_about_arrays(either):
    x = either.asarray([[1.0, 2.0], [3.0, 4.0]], "float32")
    with pytest.raises(TypeError):
        np.asarray(x)
    with pytest.raises(TypeError, match="Unsupported type"):
        x + np.ones(2, np.float32)
    with pytest.raises(TypeError, match="Unsupported type"):
        x += np.ones(2, np.float32)
    with pytest.raises(ValueError, match="non-scalar"):
        x[0] = np.ones(2, np.float32)
    with pytest.raises(TypeError):
        hash(x)
    with pytest.raises(TypeError):
        range(either.scalar(3, "int64"))
    assert (x * np.float32(2)).dtype == (x + 1.5).dtype == np.float32
    assert (x * np.float64(2)).dtype == np.float64
    assert either.xp.sum(x).shape == x[0, 0].shape == ()
    assert type(either.xp.sum(x)) is type(x[0, 0]) is type(x)
    assert either.asarray(x) is x.astype("float32", copy=False) is x


def test_claims_about_views(either):
    x = either.zeros((4, 6), "float32")
    x[1][...] = 1
    either.xp.reshape(x[2:], (12,))[6:] = 2
    x.T[0] += 3
    x.swapaxes(0, 1)[5, 0] = 4
    expected = [[3, 0, 0, 0, 0, 4], [4, 1, 1, 1, 1, 1], [3, 0, 0, 0, 0, 0], [5, 2, 2, 2, 2, 2]]
    assert either.to_numpy(x).tolist() == expected


def test_claims_about_devices(either):
    cupy = either.cupy
    here = cupy.cuda.Device(either.index)
    with here, here, cupy.cuda.Device():
        assert either.zeros((1,), "float32").device == here == cupy.cuda.Device(here)
    with pytest.raises(TypeError):
        hash(here)
    invalid = pytest.raises(cupy.cuda.runtime.CUDARuntimeError, match="cudaErrorInvalidDevice")
    with invalid as caught, cupy.cuda.Device(cupy.cuda.runtime.getDeviceCount()):
        pass
    assert caught.value.status == 101


def test_claims_about_streams_and_graphs(either):
    cupy, x, y = either.cupy, either.zeros((4,), "float32"), either.zeros((4,), "float32")
    with pytest.raises(RuntimeError, match="legacy"):
        cupy.cuda.get_current_stream().begin_capture()
    y[...] = x
    x += 1  # CuPy's kernels are compiled
    x.fill(0)
    either.synchronize()
    with gpus.stream_of(either) as stream:
        assert cupy.cuda.get_current_stream() is stream
        stream.begin_capture()
        assert stream.is_capturing()
        y[...] = x
        x += 1
        graph = stream.end_capture()
        assert not stream.is_capturing()
        for n in range(3):
            assert x.get().tolist() == [n] * 4
            graph.launch()
            stream.record(event := cupy.cuda.Event(disable_timing=True))
            stream.synchronize()
            assert event.done
            assert y.get().tolist() == [n] * 4
        stream.begin_capture()
        with pytest.raises(RuntimeError, match=r"(?i)captur"):
            x.get()
        with suppress(RuntimeError):  # CUDA may have given up the recording
            stream.end_capture()
    assert cupy.cuda.get_current_stream().ptr == 0


# Nothing waits


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("before", [1, 5], ids=["kernel by kernel", "one graph"])
def test_a_step_does_not_wait(before, where, cuda):
    """By CuPy's own detector, which knows of its copies to the host and Device.synchronize."""
    import cupyx

    step = TrainStep(model_on(cuda, "float32"), losses.CrossEntropy(), optim.Adam(1e-3), clip_norm=1.0)
    x, y = (put(cuda, X), put(cuda, LABELS)) if where == "device" else (X, LABELS)
    for _ in range(before):
        step(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, since it may miss some
        with cupyx.allow_synchronize(False):
            loss = step(x, y)
            with pytest.raises(cupyx.DeviceSynchronized):
                float(loss)


def test_a_formula_can_be_captured(either):
    """Numbers from the host are arguments of kernels, so a graph takes them. Products through CuPy it would refuse."""
    x, b, fused = put(either, X), put(either, B), either.fuse(gelu)
    expected = fetch(either, fused(fused(x, b), b))
    fused(warm := put(either, X), b, out=warm)  # the kernel that works in place is compiled
    either.synchronize()
    with gpus.stream_of(either) as stream:
        stream.begin_capture()
        fused(x, b, out=x)
        graph = stream.end_capture()
        assert error(fetch(either, x), X) == 0  # captured, not run
        graph.launch()
        graph.launch()
        stream.synchronize()
    assert error(fetch(either, x), expected) <= 1e-6


# TF32


def test_tf32_rounds_what_float32_products_read(tensor_cores):
    """To 10 bits after the point, where there are tensor cores for it; sums are in float32."""
    a, b = draw(0, 512, 1024), draw(1, 1024, 512)
    product = (a.astype(np.float32).astype(np.float64)) @ b.astype(np.float32)
    y = tensor_cores.gemm(*(put(tensor_cores, x.astype(np.float32)) for x in (a, b)))
    off = error(fetch(tensor_cores, y), product)
    assert off < 2e-3
    assert (off > 2e-6) == gpus.has_tensor_cores(tensor_cores)


def test_tf32_leaves_float64_alone(tensor_cores):
    a, b = draw(0, 128, 256), draw(1, 256, 64)
    assert error(fetch(tensor_cores, tensor_cores.gemm(put(tensor_cores, a), put(tensor_cores, b))), a @ b) <= 1e-13


# Too little memory


def test_what_does_not_fit_raises_and_leaves_the_gpu_usable(either):
    """An array that is larger than the memory, and a formula whose result is."""
    cupy, real = either.cupy, gpus.is_real(either)
    count = (cupy.cuda.runtime.memGetInfo()[1] if real else 1 << 48) // 4 + 1  # float32
    vast = cupy.broadcast_to(either.zeros((1,), "float32"), (count,))
    x, b, fused = put(either, X), put(either, B), either.fuse(gelu)
    before = fetch(either, fused(x, b)), fetch(either, either.gemm(x, x, transpose_b=True))
    for _ in range(3):
        for make in (lambda: either.empty((count,), "float32"), lambda: either.zeros((2, count), "float32")):
            with pytest.raises(MemoryError, match=r"(?i)allocat\w* \d"):
                make()
        with pytest.raises(MemoryError, match=r"(?i)allocat\w* \d"):
            fused(vast, either.zeros((1,), "float32"))
        after = fetch(either, fused(x, b)), fetch(either, either.gemm(x, x, transpose_b=True))
        assert [y.tobytes() for y in after] == [y.tobytes() for y in before]
