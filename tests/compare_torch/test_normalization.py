"""LayerNorm and RMSNorm: output and all gradients."""

import numpy as np
import pytest

from gpunet import layers
from gpunet.layers import Sequential

from .peer import DTYPES, TOLERANCE, assert_close, tensor, torch

PAIRS = {
    "LayerNorm": (layers.LayerNorm, lambda k: torch.nn.LayerNorm(k), {"scale": "weight", "shift": "bias"}),
    "RMSNorm": (layers.RMSNorm, lambda k: torch.nn.RMSNorm(k, eps=1e-6), {"scale": "weight"}),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("shape", [(9, 8), (3, 5, 64), (2, 300)])
@pytest.mark.parametrize(("ours", "theirs", "names"), PAIRS.values(), ids=PAIRS)
def test_output_and_gradients(ours, theirs, names, shape, affine, dtype):
    rng = np.random.default_rng(0)
    x = (3 * rng.standard_normal(shape) + 1).astype(dtype)
    dy = rng.standard_normal(shape).astype(dtype)
    model = Sequential(ours(affine=affine)).build(shape[1:], device="cpu", dtype=dtype)
    twin, their_x = theirs(shape[-1]).to(getattr(torch, dtype)), tensor(x, grad=True)
    if affine:
        weights = {f"0.{name}": rng.standard_normal(shape[-1]).astype(dtype) for name in names}
        model.set_weights(weights)
        for name, other in names.items():
            getattr(twin, other).data = tensor(weights[f"0.{name}"])
    ctx = model.context(training=True, needs_input_grad=True)
    y, saved = model.forward(x, ctx)
    dx = model.backward(dy, saved, ctx)
    their_y = twin(their_x)
    their_y.backward(tensor(dy))
    assert_close(y, their_y, TOLERANCE[dtype], "y")
    assert_close(dx, their_x.grad, TOLERANCE[dtype], "dx")
    for name, other in names.items() if affine else ():
        gradient = getattr(twin, other).grad
        assert_close(model.get_gradients()[f"0.{name}"], gradient, 2 * TOLERANCE[dtype], name)


@pytest.mark.parametrize("layer", [layers.LayerNorm, layers.RMSNorm])
def test_large_and_small_inputs(layer):
    """A large mean does not eat the variance; tiny inputs are governed by eps."""
    x = np.random.default_rng(0).standard_normal((4, 16)).astype(np.float32)
    for scale, offset in ((1.0, 1000.0), (1e-4, 0.0)):
        z = (scale * x + offset).astype(np.float32)
        y = Sequential(layer()).build((16,), device="cpu").predict(z)
        twin = torch.nn.LayerNorm(16) if layer is layers.LayerNorm else torch.nn.RMSNorm(16, eps=1e-6)
        expected = twin.double()(tensor(z.astype(np.float64))).detach()
        assert_close(y, expected, 1e-3 if offset and layer is layers.LayerNorm else 2e-6, "y")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(32, 6), (7, 5, 6)])
def test_batch_norm(shape, dtype):
    """Three training passes, then an evaluation: outputs, gradients, running averages."""
    rng = np.random.default_rng(0)
    model = Sequential(layers.BatchNorm()).build(shape[1:], device="cpu", dtype=dtype)
    twin = torch.nn.BatchNorm1d(6).to(getattr(torch, dtype))
    scale = rng.random(6).astype(dtype)
    model.set_weights({"0.scale": scale})
    twin.weight.data = tensor(scale)
    for i in range(3):
        x, dy = ((i + 1) * rng.standard_normal(shape) + i).astype(dtype), rng.standard_normal(shape).astype(dtype)
        ctx = model.context(training=True, needs_input_grad=True)
        y, saved = model.forward(x, ctx)
        dx = model.backward(dy, saved, ctx)
        their_x = tensor(x, grad=True)
        twin.zero_grad()
        their_y = twin(their_x.reshape(-1, 6)).reshape(shape)
        their_y.backward(tensor(dy))
        gradients = model.get_gradients()
        assert_close(y, their_y, TOLERANCE[dtype], "y")
        assert_close(dx, their_x.grad, 4 * TOLERANCE[dtype], "dx")
        assert_close(gradients["0.scale"], twin.weight.grad, 4 * TOLERANCE[dtype], "scale")
        assert_close(gradients["0.shift"], twin.bias.grad, 4 * TOLERANCE[dtype], "shift")
    weights = model.get_weights()
    assert_close(weights["0.running_mean"], twin.running_mean, TOLERANCE[dtype], "running mean")
    assert_close(weights["0.running_variance"], twin.running_var, TOLERANCE[dtype], "running variance")
    expected = twin.eval()(tensor(x.reshape(-1, 6))).reshape(shape)
    assert_close(model.predict(x), expected, TOLERANCE[dtype], "prediction")
