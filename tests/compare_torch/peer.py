"""What the comparisons share: the error metric, and a torch model that is the twin of a gpunet one."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from gpunet.formula import random_bits
from gpunet.layers import Dense, Dropout, Flatten, ReLU, Sequential, Sigmoid, Tanh
from gpunet.losses import (
    BinaryCrossEntropy,
    CosineSimilarity,
    CrossEntropy,
    Hinge,
    Huber,
    KLDivergence,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    SmoothL1,
)

torch = pytest.importorskip("torch", reason="PyTorch is not installed: gpunet was not compared with it")
torch.set_num_threads(1)  # the arrays are tiny: more threads only wait for each other

TOLERANCE = {"float32": 2e-6, "float64": 1e-12}
DTYPES = list(TOLERANCE)


def error(ours, reference) -> float:
    """max|a - b| / max|b|; where b is zero everywhere, max|a|."""
    a, b = np.asarray(ours, np.float64), np.asarray(reference, np.float64)
    assert a.shape == b.shape
    assert np.isfinite(b).all()
    scale = np.abs(b).max(initial=0.0)
    return float(np.abs(a - b).max(initial=0.0) / (scale or 1.0))


def assert_close(ours, reference, tolerance: float, what: str) -> None:
    """By the metric above. torch tensors may be on either side; numbers and dicts of arrays too."""
    if isinstance(ours, dict):
        assert ours.keys() == reference.keys()
        for name in ours:
            assert_close(ours[name], reference[name], tolerance, f"{what} {name}")
        return
    worst = error(ours, reference.detach() if torch.is_tensor(reference) else reference)
    assert worst <= tolerance, f"{what}: {worst:.2g} > {tolerance:.2g}"


def away_from_zero(x, distance: float = 1e-3):
    """x with the elements around the kink of ReLU moved outwards, so that rounding cannot decide their slope."""
    return np.where(np.abs(x) < distance, x + np.copysign(2 * distance, x), x)


def tensor(x, *, grad: bool = False):
    """A torch tensor that shares no memory with the array."""
    return torch.tensor(np.asarray(x), requires_grad=grad)


class KeyedDropout(torch.nn.Module):
    """Dropout with gpunet's mask: bits with key (seed, draw) and counter (element index, step), computed in NumPy."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate, self.key = rate, (0, 0, 0)

    def forward(self, x):
        seed, draw, step = self.key
        bits = random_bits(np.empty(tuple(x.shape)), seed, draw, step)
        return x * tensor(bits >= round(self.rate * 2**32)) / (1 - self.rate)


class Twin(torch.nn.Module):
    """The torch model with a gpunet model's layers and weights; gradients by autograd."""

    def __init__(self, model: Sequential):
        super().__init__()
        self.names = {}
        modules = {layer: self._convert(layer) for layer in dict.fromkeys(model.layers)}  # one used twice stays one
        self.body = torch.nn.Sequential(*(modules[layer] for layer in model.layers))
        self.set_weights(model.get_weights())

    def _convert(self, layer):
        match layer:
            case Dense():
                dtype = getattr(torch, layer.dtype)
                linear = torch.nn.Linear(layer.built[0][-1], layer.units, bias=layer.use_bias, dtype=dtype)
                for name, parameter in linear.named_parameters():
                    self.names[layer.prefix + name] = parameter
                return linear
            case Dropout():
                return KeyedDropout(layer.rate)
            case ReLU() | Sigmoid() | Tanh() | Flatten():
                return getattr(torch.nn, type(layer).__name__)()
        raise NotImplementedError(f"no torch module for {layer}")

    def set_weights(self, weights) -> None:
        """gpunet's weights, (in, out), as torch's, (out, in)."""
        with torch.no_grad():
            for name, parameter in self.names.items():
                parameter.copy_(tensor(weights[name].T))

    def weights(self):
        """By gpunet's names and in its shapes."""
        return {name: p.detach().numpy().T for name, p in self.names.items()}

    def gradients(self):
        """By gpunet's names and in its shapes."""
        return {name: p.grad.numpy().T for name, p in self.names.items()}

    def forward(self, x, *, step: int = 0, seed: int = 0):
        """A training forward: the n-th active dropout has draw n."""
        active = [m for m in self.body if isinstance(m, KeyedDropout) and m.rate > 0]
        for draw, module in enumerate(active):
            module.key = (seed, draw, step)
        return self.body(x)


def torch_loss(loss, prediction, target):
    """The torch function that computes what a gpunet loss does."""
    functional = torch.nn.functional
    match loss:
        case CrossEntropy():
            target = target.movedim(-1, 1) if target.is_floating_point() else target.long()  # (N, …, C) -> (N, C, …)
            weight = None if loss.class_weights is None else tensor(loss.class_weights).to(prediction.dtype)
            ignored = -100 if loss.ignore_label is None else loss.ignore_label
            options = {"weight": weight, "ignore_index": ignored, "label_smoothing": loss.label_smoothing}
            return functional.cross_entropy(prediction.movedim(-1, 1), target, **options)
        case BinaryCrossEntropy():
            weight = torch.tensor(loss.positive_weight, dtype=prediction.dtype)
            return functional.binary_cross_entropy_with_logits(prediction, target, pos_weight=weight)
        case MeanSquaredError():
            return functional.mse_loss(prediction, target)
        case MeanAbsoluteError():
            return functional.l1_loss(prediction, target)
        case Huber():
            return functional.huber_loss(prediction, target, delta=loss.delta)
        case SmoothL1():
            return functional.smooth_l1_loss(prediction, target, beta=loss.beta)
        case Hinge():
            return functional.margin_ranking_loss(prediction, torch.zeros_like(prediction), target, margin=1.0)
        case Poisson():
            return functional.poisson_nll_loss(prediction, target, log_input=True, full=False)
        case KLDivergence():
            return functional.kl_div(prediction.flatten(0, -2), target.flatten(0, -2), reduction="batchmean")
        case CosineSimilarity():
            return 1 - functional.cosine_similarity(prediction, target, dim=-1, eps=loss.eps).mean()
    raise NotImplementedError(f"no torch loss for {loss}")


def torch_optimizer(optimizer, parameters):
    """The torch optimizer with a gpunet optimizer's settings."""
    given = {f.name: getattr(optimizer, f.name) for f in fields(optimizer) if f.init and f.name != "groups"}
    if "beta1" in given:
        given["betas"] = given.pop("beta1"), given.pop("beta2")
    return getattr(torch.optim, type(optimizer).__name__)(parameters, lr=given.pop("learning_rate"), **given)


def randomize(model: Sequential, rng) -> None:
    """Random weights, biases too: those a model starts with are zero and would hide errors."""
    weights = model.get_weights()
    scales = {name: 1.0 / np.sqrt(w.shape[0]) if w.ndim == 2 else 0.3 for name, w in weights.items()}
    model.set_weights({name: rng.normal(size=w.shape) * scales[name] for name, w in weights.items()})
