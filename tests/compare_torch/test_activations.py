"""Every activation: value and gradient, far out and near its kinks, and at infinities and NaN."""

import numpy as np
import pytest

from gpunet import layers
from gpunet.layers import Sequential

from .peer import DTYPES, TOLERANCE, assert_close, tensor, torch

functional = torch.nn.functional
PAIRS = {
    "Identity": (layers.Identity(), torch.nn.Identity()),
    "ReLU": (layers.ReLU(), functional.relu),
    "ReLU6": (layers.ReLU6(), functional.relu6),
    "LeakyReLU": (layers.LeakyReLU(), functional.leaky_relu),
    "LeakyReLU(0.3)": (layers.LeakyReLU(0.3), lambda x: functional.leaky_relu(x, 0.3)),
    "ELU": (layers.ELU(), functional.elu),
    "ELU(0.5)": (layers.ELU(0.5), lambda x: functional.elu(x, 0.5)),
    "SELU": (layers.SELU(), functional.selu),
    "CELU(0.7)": (layers.CELU(0.7), lambda x: x.clamp(min=0) + 0.7 * torch.expm1(x.clamp(max=0) / 0.7)),  # its: float32
    "GELU": (layers.GELU(), functional.gelu),
    "GELU by tanh": (layers.GELU(approximate=True), lambda x: functional.gelu(x, approximate="tanh")),
    "SiLU": (layers.SiLU(), functional.silu),
    "Mish": (layers.Mish(), functional.mish),
    "Softplus": (layers.Softplus(), lambda x: functional.softplus(x, threshold=30)),
    "Softplus(3)": (layers.Softplus(3.0), lambda x: functional.softplus(x, 3.0, threshold=30)),
    "Softsign": (layers.Softsign(), functional.softsign),
    "Sigmoid": (layers.Sigmoid(), torch.sigmoid),
    "Tanh": (layers.Tanh(), torch.tanh),
    "HardSigmoid": (layers.HardSigmoid(), lambda x: torch.clamp(x / 6 + 0.5, 0, 1)),  # its own: float32
    "HardSwish": (layers.HardSwish(), functional.hardswish),
    "Softmax": (layers.Softmax(), lambda x: functional.softmax(x, -1)),
    "LogSoftmax": (layers.LogSoftmax(), lambda x: functional.log_softmax(x, -1)),
    "GLU": (layers.GLU(), functional.glu),
    "SwiGLU": (layers.SwiGLU(), lambda x: functional.silu(x[..., : x.shape[-1] // 2]) * x[..., x.shape[-1] // 2 :]),
}
pairs = pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS.keys())
KINKS = (-3, 0, 3, 6)


def both(ours, theirs, x):
    """(y, dx) of both."""
    model = Sequential(type(ours)(**ours.config())).build(x.shape[1:], device="cpu", dtype=x.dtype.name)
    ctx = model.context(training=True, needs_input_grad=True)
    y, saved = model.forward(x, ctx)
    dy = np.random.default_rng(1).standard_normal(y.shape).astype(x.dtype)
    dx = model.backward(dy, saved, ctx)
    their_x = tensor(x, grad=True)
    their_y = theirs(their_x)
    their_y.backward(tensor(dy))
    return (y, dx), (their_y.detach().numpy(), their_x.grad.numpy())


@pairs
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0.01, 1, 10])
def test_values_and_gradients(ours, theirs, dtype, size):
    x = size * np.random.default_rng(0).standard_normal((40, 12))
    for kink in KINKS:
        x = np.where(abs(x - kink) < 1e-4, x + 1e-3, x)
    for a, b in zip(*both(ours, theirs, x.astype(dtype)), strict=True):
        assert_close(a, b, TOLERANCE[dtype], type(ours).__name__)


@pairs
def test_far_out(ours, theirs):
    """At ±1e4 in float32 nothing overflows."""
    x = np.array([[1e4, -1e4, 50, -50, 100, -100, 1e3, -1e3, 90, -90]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        (y, dx), (their_y, their_dx) = both(ours, theirs, x)
    assert_close(y, their_y, TOLERANCE["float32"], "y")
    assert_close(dx, their_dx, TOLERANCE["float32"], "dx")


ELEMENTWISE = {n: p for n, p in PAIRS.items() if n not in ("Softmax", "LogSoftmax", "GLU", "SwiGLU")}
UNDEFINED = ("GELU", "SiLU", "Mish", "Softsign")
"""0 times infinity, or infinity by infinity: NaN in one place or another."""


@pytest.mark.parametrize(("ours", "theirs"), ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
def test_nan_propagates(ours, theirs):
    (y, _), (their_y, _) = both(ours, theirs, np.array([[np.nan, 1.0]], np.float32))
    assert np.isnan(y[0, 0])
    assert np.isnan(their_y[0, 0])
    assert y[0, 1] == pytest.approx(their_y[0, 1])


@pytest.mark.parametrize(("ours", "theirs"), ELEMENTWISE.values(), ids=ELEMENTWISE.keys())
def test_infinity(ours, theirs):
    (y, _), (their_y, _) = both(ours, theirs, np.array([[np.inf, -np.inf]], np.float32))
    expected = 0.0 if type(ours) is layers.HardSwish else their_y[0, 1]
    assert type(ours).__name__ in UNDEFINED or (y[0, 0], y[0, 1]) == (their_y[0, 0], expected)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_prelu(shared, dtype):
    rng = np.random.default_rng(2)
    x, dy = rng.standard_normal((2, 30, 5)).astype(dtype)
    model = Sequential(layers.PReLU(shared=shared)).build((5,), device="cpu", dtype=dtype)
    assert np.all(model.get_weights()["0.slope"] == 0.25)
    slope = rng.random(1 if shared else 5).astype(dtype)
    model.set_weights({"0.slope": slope})
    ctx = model.context(training=True, needs_input_grad=True)
    y, saved = model.forward(x, ctx)
    dx = model.backward(dy, saved, ctx)
    their_x, their_slope = tensor(x, grad=True), tensor(slope, grad=True)
    their_y = functional.prelu(their_x, their_slope)
    their_y.backward(tensor(dy))
    assert_close(y, their_y, TOLERANCE[dtype], "y")
    assert_close(dx, their_x.grad, TOLERANCE[dtype], "dx")
    assert_close(model.get_gradients()["0.slope"], their_slope.grad, TOLERANCE[dtype], "slope")


def test_gains_are_those_of_torch():
    names = {"relu": layers.ReLU, "tanh": layers.Tanh, "sigmoid": layers.Sigmoid, "selu": layers.SELU}
    for name, layer in names.items():
        assert layer.gain == pytest.approx(torch.nn.init.calculate_gain(name))
