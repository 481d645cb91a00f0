"""PyTorch's tensors come in by DLPack."""

import numpy as np
import pytest
from fakegpu import Counts

from gpunet import Trainer, TrainStep, layers, losses, optim
from gpunet.errors import ArrayError
from gpunet_backends.array_api import open_torch

torch = pytest.importorskip("torch")


def numbers(n=64):
    """Inputs and labels."""
    x = np.random.default_rng(0).standard_normal((n, 5)).astype(np.float32)
    return x, np.argmax(x[:, :3], axis=-1)


def classifier(backend):
    return layers.Sequential(layers.Dense(8), layers.Tanh(), layers.Dense(3)).build((5,), device=backend, seed=1)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
def test_a_tensor(backend, dtype):
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    own = backend.asarray(tensor)
    assert backend.owns(own)
    assert backend.to_numpy(own).dtype == dtype
    assert backend.to_numpy(own).tolist() == tensor.tolist()


@pytest.mark.parametrize(
    "tensor", [torch.arange(12.0).reshape(3, 4)[::2, 1:3], torch.ones(1, 3).expand(4, 3), torch.ones(0, 3)]
)
def test_a_view(backend, tensor):
    assert backend.to_numpy(backend.asarray(tensor, "float64")).tolist() == tensor.tolist()


def test_it_is_the_same_memory(cpu):
    tensor = torch.ones(3)
    own = cpu.asarray(tensor, "float32")
    tensor[0] = 5
    assert own.tolist() == [5, 1, 1]


def test_it_is_an_own_array_to_its_own_backend():
    tensor = torch.ones(3, requires_grad=True)
    assert open_torch(None).asarray(tensor) is tensor


@pytest.mark.parametrize(
    ("make", "reason", "remedy"),
    [
        (lambda: torch.nn.Parameter(torch.ones(3)), "require gradient", "detach"),
        (lambda: torch.ones(3, requires_grad=True), "require gradient", "detach"),
        (lambda: torch.ones(3, dtype=torch.bfloat16), "dtype", "float"),
        (lambda: torch.eye(3).to_sparse(), "layout", "to_dense"),
    ],
)
def test_what_pytorch_or_numpy_does_not_pass_on(backend, make, reason, remedy):
    tensor = make()
    if backend.name == "torch" and type(tensor) is torch.Tensor:
        assert backend.asarray(tensor) is tensor
        return
    kind = rf"torch\.\S*{type(tensor).__name__}"
    with pytest.raises(ArrayError, match=rf"cannot take this {kind}: .*{reason}.*\. Pass .*x\.{remedy}\(\) if"):
        backend.asarray(tensor)
    assert backend.owns(backend.asarray(getattr(tensor, remedy)()))


def test_a_tensor_without_numbers(cpu):
    with pytest.raises(ArrayError, match=r"^this torch\.Tensor does not say where it is: .*meta"):
        cpu.asarray(torch.ones(3, device="meta"))


def test_a_complex_tensor(cpu):
    with pytest.raises(ArrayError, match="takes numbers, but got an array of complex64"):
        cpu.asarray(torch.ones(3, dtype=torch.complex64))


def test_batches_of_a_data_loader(backend):
    """The same bits as with NumPy's arrays."""
    x, y = numbers()

    def run(batches):
        step = TrainStep(classifier(backend), losses.CrossEntropy(), optim.Adam(1e-2))
        return [float(step(*batch)) for batch in batches], step.model.get_weights()

    data = torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y))
    (values, weights) = run(torch.utils.data.DataLoader(data, batch_size=8))
    expected_values, expected = run([(x[i : i + 8], y[i : i + 8]) for i in range(0, len(x), 8)])
    assert values == expected_values
    assert all(np.array_equal(w, expected[name]) for name, w in weights.items())


def test_on_a_gpu_they_are_a_captured_steps(fakegpu):
    gpu = fakegpu()
    step = TrainStep(classifier(gpu), losses.CrossEntropy(), optim.Adam(1e-2))
    x, y = map(torch.from_numpy, numbers(8))
    for _ in range(6):
        gpu.cupy.reset()
        step(x, y)
    assert gpu.cupy.counts == Counts(graphs=1, uploads=2, launches=1)


def test_predict_and_fit(backend):
    x, y = numbers()

    def run(x, y):
        trainer = Trainer(classifier(backend), losses.CrossEntropy(), optim.SGD(0.1), metrics=["accuracy"])
        return trainer.fit(x, y, validation_split=0.25, verbose=0)["val_loss"], trainer.model.predict(x)

    (loss, prediction), (expected_loss, expected) = run(torch.from_numpy(x), torch.from_numpy(y)), run(x, y)
    assert loss == expected_loss
    assert np.array_equal(prediction, expected)


def test_weights_of_a_pytorch_model(backend):
    """Linear keeps them as (out, in)."""
    linear, model = torch.nn.Linear(5, 3), layers.Sequential(layers.Dense(3)).build((5,), device=backend)
    model.set_weights({"0.weight": linear.weight.detach().T, "0.bias": linear.bias.detach()})
    x = torch.from_numpy(numbers(4)[0])
    np.testing.assert_allclose(model.predict(x), linear(x).detach().numpy(), rtol=1e-5, atol=1e-6)
