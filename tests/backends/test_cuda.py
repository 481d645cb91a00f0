"""What only a real NVIDIA GPU can show. The suites of formulas, layers, losses and optimizers run there as well."""

import warnings

import numpy as np
import pytest
from fakegpu import open_fakegpu
from kit import draw, error

from gpunet import layers, losses, optim
from gpunet.formula import random_bits, total
from gpunet.train.step import TrainStep

pytestmark = pytest.mark.cuda

SHAPE = (64, 48)
X, B = draw(0, *SHAPE).astype(np.float32), draw(1, SHAPE[1]).astype(np.float32)
SPECIAL = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, 1e-40, -1.0]], np.float32)


def gelu(xp, x, b):
    return 0.5 * x * (1 + xp.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x))) + b


def softmax(xp, x, b):
    e = xp.exp(x + b - xp.max(x + b, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True), total(e * 1.0)


def special(xp, x, b):
    return xp.where(x <= 0, 0.0, x), xp.maximum(x, 0.0), xp.exp(x), xp.sqrt(x), x / b


def bits(xp, x, seed, number, step):
    return xp.where(random_bits(x, seed, number, step) >= 2**31, x, 0.0)


def on(backend, formula, *operands):
    """The outputs of a formula, on the host."""
    made = [backend.asarray(o) if np.ndim(o) else backend.scalar(o, "int64") for o in operands]
    results = backend.fuse(formula)(*made)
    return [np.array(backend.to_numpy(r)) for r in (results if isinstance(results, tuple) else (results,))]


def model_on(backend, dtype):
    model = layers.Sequential(
        layers.Dense(32), layers.ReLU(), layers.Dropout(0.2), layers.Dense(16), layers.Tanh(), layers.Dense(4)
    )
    model.build((SHAPE[1],), device=backend, dtype=dtype)
    return model


LABELS = np.random.default_rng(2).integers(0, 4, SHAPE[0]).astype(np.int32)


# The same numbers as on the CPU


@pytest.mark.parametrize("formula", [gelu, softmax])
def test_formulas_agree_with_numpy(formula, cuda, cpu):
    for result, expected in zip(on(cuda, formula, X, B), on(cpu, formula, X, B), strict=True):
        assert result.dtype == expected.dtype
        assert error(result, expected) <= 2e-6


def test_special_values_agree_with_numpy(cuda, cpu):
    for result, expected in zip(on(cuda, special, SPECIAL, B[:8]), on(cpu, special, SPECIAL, B[:8]), strict=True):
        np.testing.assert_allclose(result, expected, rtol=2e-6, atol=1.2e-38)  # a GPU may flush subnormal numbers


def test_random_bits_are_the_same(cuda, cpu):
    np.testing.assert_array_equal(*(on(b, bits, X, 2**32 - 1, 3, 2**31)[0] for b in (cuda, cpu)))


@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize(
    "shapes", [((64, 48), (48, 40)), ((3, 8, 48), (3, 48, 5)), ((1, 48), (48, 1)), ((0, 8), (8, 4))]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gemm_agrees_with_numpy(shapes, transpose_a, transpose_b, dtype, cuda):
    a, b = (draw(i, *shape).astype(dtype) for i, shape in enumerate(shapes))
    product = a.astype(np.float64) @ b.astype(np.float64)
    ga = cuda.asarray(a.swapaxes(-1, -2) if transpose_a else a)
    gb = cuda.asarray(b.swapaxes(-1, -2) if transpose_b else b)
    flags = {"transpose_a": transpose_a, "transpose_b": transpose_b}
    out = cuda.zeros(product.shape, dtype)
    tolerance = 2e-6 if dtype == "float32" else 1e-13  # TF32 would be 1e-3
    assert error(cuda.to_numpy(cuda.gemm(ga, gb, **flags)), product) <= tolerance
    assert error(cuda.to_numpy(cuda.gemm(ga, gb, out=out, **flags)), product) <= tolerance
    assert error(cuda.to_numpy(cuda.gemm(ga, gb, out=out, accumulate=True, **flags)), 2 * product) <= tolerance


def test_first_gradients_agree_with_numpy(cuda, cpu):
    gradients = []
    for backend in (cuda, cpu):
        model = model_on(backend, "float32")
        TrainStep(model, losses.CrossEntropy(), optim.SGD(0.0), seed=7)(X, LABELS)
        gradients.append(model.get_gradients())
    for name, g in gradients[1].items():
        assert error(gradients[0][name], g) <= 2e-6, name


def test_a_training_run_agrees_with_numpy(cuda, cpu):
    """200 steps with dropout, clipping and Adam in float64."""
    weights, values = [], []
    for backend in (cuda, cpu):
        model = model_on(backend, "float64")
        step = TrainStep(model, losses.CrossEntropy(), optim.Adam(1e-3), clip_norm=1.0, seed=7)
        values.append([float(backend.to_numpy(step(X, LABELS))) for _ in range(200)])
        weights.append(model.get_weights())
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    assert values[0][-1] < 0.5 * values[0][0]
    for name, w in weights[1].items():
        assert error(weights[0][name], w) <= 1e-9, name


# What the fake GPU claims about CuPy


@pytest.fixture(params=["cuda", "fakegpu"])
def either(request):
    """The GPU and its stand-in."""
    return request.getfixturevalue("cuda") if request.param == "cuda" else open_fakegpu()


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


# Nothing waits


def test_a_step_does_not_wait(cuda):
    """By CuPy's own detector, which knows of its copies to the host and Device.synchronize."""
    import cupyx

    step = TrainStep(model_on(cuda, "float32"), losses.CrossEntropy(), optim.Adam(1e-3), clip_norm=1.0)
    x, y = cuda.asarray(X), cuda.asarray(LABELS)
    step(x, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, since it may miss some
        with cupyx.allow_synchronize(False):
            loss = step(x, y)
            with pytest.raises(cupyx.DeviceSynchronized):
                float(loss)


def test_a_formula_can_be_captured(cuda):
    """Numbers from the host are arguments of kernels, so a graph takes them. Products through CuPy it would refuse."""
    x, b = cuda.asarray(X), cuda.asarray(B)
    fused = cuda.fuse(gelu)
    expected = on(cuda, gelu, on(cuda, gelu, X, B)[0], B)[0]
    cuda.synchronize()
    stream = cuda.cupy.cuda.Stream(non_blocking=True)
    with stream:
        fused(x, b)
        stream.synchronize()  # warm: kernels are compiled, memory is in the pool
        stream.begin_capture()
        fused(x, b, out=x)
        graph = stream.end_capture()
        assert error(cuda.to_numpy(x), X) == 0  # captured, not run
        graph.launch()
        graph.launch()
        stream.synchronize()
    assert error(cuda.to_numpy(x), expected) <= 1e-6
