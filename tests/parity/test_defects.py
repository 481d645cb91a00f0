"""Planted defects of a device: each is found, and the report names layer and tensor."""

from __future__ import annotations

import numpy as np
import pytest
from kit import draw

from gpunet import layers, losses, optim, parity
from gpunet.backend import register
from gpunet_backends.array_api import ArrayAPIBackend
from gpunet_backends.numpy_ import NumpyBackend


class Device(NumpyBackend):
    """A device whose formulas are changed by ``spoil``."""

    def __init__(self, spoil=None):
        super().__init__()
        self.name, self.spoil = "defective", spoil
        register(self)

    def fuse(self, formula):
        real = super().fuse(formula)
        return real if self.spoil is None else lambda *operands, out=None: self.spoil(real, operands, out)


class Strides(Device):
    """Products read arrays as they lie in memory."""

    def gemm(self, a, b, *, transpose_a=False, transpose_b=False, out=None, accumulate=False):
        a = a.ravel(order="K").reshape(a.T.shape) if transpose_a else a
        return super().gemm(a, b, transpose_b=transpose_b, out=out, accumulate=accumulate)


def swallows_nan(real, operands, out):
    """Maxima of NaN and something else are something else: what fmax does."""
    result = real(*operands, out=out)
    if type(result) is np.ndarray and out is None and real.graph(operands).name == "ReLU":
        result[np.isnan(result)] = 0
    return result


def one_buffer_a_shape():
    """Results are written where others of that shape and formula were, though these are needed still."""
    buffers = {}

    def spoil(real, operands, out):
        result = real(*operands, out=out)
        if type(result) is not np.ndarray or out is not None or result.ndim < 2:
            return result
        buffer = buffers.setdefault((real.graph(operands).name, result.shape), np.empty_like(result))
        buffer[...] = result
        return buffer

    return spoil


def skips_the_last_block(real, operands, out):
    """Elements past the last whole block of 256 stay what they were, which is 0 in new memory."""
    result = real(*operands, out=out)
    if type(result) is np.ndarray and out is None and result.size > 256:
        result.reshape(-1)[result.size // 256 * 256 :] = 0
    return result


def writes_its_input(real, operands, out):
    """Results are written into the operand, too."""
    result = real(*operands, out=out)
    if type(result) is np.ndarray and out is None and result.shape == operands[0].shape and result.ndim > 1:
        operands[0][...] = result
    return result


def old_learning_rate():
    """An optimizer's 0-d operand is not read again after the first step."""
    seen = {}

    def spoil(real, operands, out):
        if isinstance(out, tuple) and len(out) == 1 and len(operands) == 4:
            kept = seen.setdefault(id(real), operands[2].copy())
            operands = (*operands[:2], kept, operands[3])
        return real(*operands, out=out)

    return spoil


def model(size=16):
    return layers.Sequential(
        layers.Dense(size, name="first"),
        layers.Tanh(name="one"),
        layers.Identity(),
        layers.Tanh(name="two"),
        layers.Dense(size, name="second"),
        layers.ReLU(name="cut"),
        layers.Dense(3, name="last"),
    )


def batches(count=3, nan=False):
    made = []
    for i in range(count):
        x = draw(i, 24, 10).astype(np.float32)
        if nan:
            x[3, 4] = np.nan
        made.append((x, (x[:, 0] > 0).astype(np.int64)))
    return made


def compared(device, *, optimizer=None, count=3, nan=False, network=None):
    optimizer = optimizer or optim.SGD(0.1)
    given = network or model()
    return parity.compare(given, losses.CrossEntropy(), optimizer, batches(count, nan), devices=("reference", device))


@pytest.mark.parametrize("nan", [False, True])
def test_the_healthy_device_agrees(nan):
    report = compared(Device(), nan=nan)
    assert report.ok, report.verdict
    assert report.first is None


def test_wrong_strides_are_found():
    first = compared(Strides()).first
    assert (first.layer, first.tensor) == ("Dense 'last'", "gradient of 'last.weight'")
    assert first.bad == ("defective",)


def test_a_maximum_that_swallows_nan_is_found():
    first = compared(Device(swallows_nan), nan=True).first
    assert (first.stage, first.layer, first.tensor) == ("layer", "ReLU 'cut'", "output")
    assert first.errors == (0, np.inf)
    assert compared(Device(swallows_nan)).ok  # without NaN there is nothing to find


def test_a_buffer_that_is_used_again_is_found():
    first = compared(Device(one_buffer_a_shape())).first
    assert (first.stage, first.layer, first.tensor) == ("layer", "Tanh 'one'", "gradient of the input")


def test_a_last_block_that_is_left_out_is_found():
    first = compared(Device(skips_the_last_block)).first
    assert (first.stage, first.layer, first.tensor) == ("layer", "Tanh 'one'", "output")


def test_an_input_that_is_written_is_found():
    report = compared(Device(writes_its_input))
    assert (report.first.stage, report.first.layer) == ("layer", "ReLU 'cut'")
    assert report.first.tensor == "elements of its input, or of the gradient of its output, that it changed"
    assert report.first.errors[0] == 0 < report.first.errors[1]
    assert report.first.bad == ("defective",)


def test_a_stale_operand_of_a_later_step_is_found():
    """The first step is right, and so is each layer; the last one is not."""
    rates = optim.SGD(lambda step: 0.1 / (1 + step))
    report = compared(Device(old_learning_rate()), optimizer=rates)
    assert str(report.first) == "last step: Dense 'first': 'first.weight'"
    assert "look at what runs them together, the loss, the optimizer or states" in report.verdict


def test_an_error_of_the_third_step_alone_is_found():
    """By then a GPU has recorded its work."""
    updates = []

    def spoil(real, operands, out):
        result = real(*operands, out=out)
        if isinstance(out, tuple) and len(operands) == 4:
            updates.append(1)
            if len(updates) in (3, 4):
                out[0][...] *= 1.001
        return result

    report = compared(Device(spoil), count=6)
    assert str(report.first) == "third step: Dense 'first': 'first.weight'"
    assert "Not judged in float32: the runs part by more than rounding explains, run: " in report.verdict


def test_a_layer_that_is_wrong_outside_training_alone_is_found():
    class Odd(layers.Tanh):
        def forward(self, x, ctx):
            y, saved = super().forward(x, ctx)
            return y if ctx.training or ctx.backend.name != "defective" else 1.01 * y, saved

    network = layers.Sequential(layers.Dense(4), Odd(name="odd"), layers.Dense(3))
    first = compared(Device(), network=network).first
    assert (first.stage, first.layer, first.tensor) == ("layer", "Odd 'odd'", "output outside training")


def test_one_sample_that_is_wrong_in_the_merged_step_is_found():
    """Gradients are sums over the batch: too little of it may be left in them."""

    def spoil(real, operands, out):
        result = real(*operands, out=out)
        if type(result) is np.ndarray and result.ndim == 2 and "+" in real.graph(operands).name:
            result.flat[abs(result).argmax()] *= 1.001
        return result

    report = compared(Device(spoil))
    assert report.first.stage == "first step"
    assert any(str(row) == "first step: all layers: output" and row.bad for row in report.rows)


def test_a_barrier_that_is_missing_is_found(fakegpu, monkeypatch):
    """In a kernel that the CPU runs in several orders of threads."""
    from fakegpu_cuda import CudaError

    from gpunet_backends import cuda_emit

    text = cuda_emit.prelude()
    barrier = "shared[threadIdx.x / 32] = x;\n    __syncthreads();"

    def run():
        gpu = fakegpu()
        gpu.cupy.orders = (0, 1, 7)
        return compared(gpu, count=1)

    assert run().ok
    assert barrier in text
    monkeypatch.setattr(cuda_emit, "prelude", lambda: text.replace(barrier, barrier.partition("\n")[0], 1))
    with pytest.raises(CudaError, match=r"the results of 'gpunet_CrossEntropy_formula' depend on the order of"):
        run()


def test_the_defect_may_be_in_the_recording(tmp_path):
    path = tmp_path / "r.safetensors"
    parity.record(model(), losses.CrossEntropy(), optim.SGD(0.1), batches(), path, device=Device(skips_the_last_block))
    report = parity.replay(path, register(ArrayAPIBackend(np, None, "reference")))
    assert report.first.bad == ("defective, recorded",)
    assert (report.first.layer, report.first.tensor) == ("Tanh 'one'", "output")
