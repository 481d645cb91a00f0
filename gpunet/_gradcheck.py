"""gradcheck: backward against finite differences."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from gpunet.backend import Backend, Shape, host
from gpunet.backend import device as open_device
from gpunet.errors import GradientError
from gpunet.layer import Layer, everything
from gpunet.layers.embedding import Embedding
from gpunet.layers.sequential import Sequential
from gpunet.losses import Loss

STEP = 1e-6
KINK = 1e-4
"""Curvature over the step, relative to the slope, above which a direction crosses a kink and another one is drawn."""


def gradcheck(
    layer_or_loss: Layer | Loss,
    shape: Shape,
    *,
    target: Any = None,
    device: str | Backend = "cpu",
    seed: int = 0,
    directions: int = 3,
    tolerance: float = 1e-6,
) -> dict[str, float]:
    """Compare backward with directional finite differences in float64; -> the largest relative error by tensor.

    layer_or_loss  an unbuilt layer or model (a copy is built, in training mode with a fixed random key), or a loss
    shape          of the input or prediction, batch axis included; indices are not differentiated
    target         for a loss; drawn by the loss if not given

    What a difference loses to rounding is not counted: it is all there is where a gradient is 0.

    Forward    ⟨g, u⟩ = (s(t + h u) - s(t - h u)) / 2h for random unit directions u, s a random weighting of the output

    Raises
        GradientError: a gradient is off by more than the tolerance; the message names layer and tensor.
    """
    backend = open_device(device)
    if isinstance(layer_or_loss, Loss):
        run, tensors = _loss_case(layer_or_loss, shape, target, backend, seed)
    else:
        run, tensors = _layer_case(layer_or_loss, shape, backend, seed)
    gradients = run()[1]
    errors = {}
    for name, value in tensors.items():
        errors[name] = max(_error(run, value, gradients[name], f"{name} {d}", seed, backend) for d in range(directions))
    for name, error in errors.items():
        if not error <= tolerance:
            raise GradientError(
                f"{type(layer_or_loss).__name__}: the gradient of '{name}' is off by {error:.1e} of its size along a "
                f"random direction (tolerance {tolerance:.0e}). Compare its backward with the formula."
            )
    return errors


Run = Callable[[], tuple[float, dict[str, Any], float]]
"""-> the scalar, by tensor its gradient as a host array, and the sum of the magnitudes of the scalar's terms.

Synchronises: they are compared on the host."""
LOST = 8 * 2.0**-52 / STEP
"""What a difference loses to rounding, relative to the terms: all there is where a gradient is 0."""


def _layer_case(layer: Layer, shape: Shape, backend: Backend, seed: int) -> tuple[Run, dict[str, Any]]:
    model = copy.deepcopy(layer) if isinstance(layer, Sequential) else Sequential(copy.deepcopy(layer))
    model.build(tuple(shape[1:]), device=backend, seed=seed, dtype="float64")
    for p in model.store.parameters:  # away from zeros and ones, where a wrong factor would not show
        p.master[...] = backend.asarray(0.5 + host().uniform(seed, f"gradcheck {p.name}", p.shape))
    weighting: Any = None
    entries = model.indices()
    if entries is None:
        x = _writable(backend, host().normal(seed, "gradcheck x", tuple(shape)))
    else:
        drawn = host().xp.astype(entries * host().uniform(seed, "gradcheck x", tuple(shape)), host().xp.int32)
        for embedding in [one for one in everything(model) if isinstance(one, Embedding)]:
            padding = embedding.padding_index  # whose row has no gradient, though it has a slope
            drawn = drawn if padding is None else host().xp.where(drawn == padding, (padding + 1) % entries, drawn)
        x = backend.asarray(drawn)

    def run() -> tuple[float, dict[str, Any], float]:
        nonlocal weighting
        ctx = model.context(training=True, step=1, seed=seed, needs_input_grad=True)
        y, saved = model.forward(x, ctx)
        if weighting is None:
            weighting = backend.asarray(host().normal(seed, "gradcheck dy", tuple(y.shape)))
        dx = model.backward(weighting, saved, ctx)
        value, terms = float(backend.xp.sum(y * weighting)), float(backend.xp.sum(backend.xp.abs(y * weighting)))
        of_x = {} if dx is None else {"x": host().xp.array(backend.to_numpy(dx))}
        return value, of_x | model.get_gradients(), terms

    of_x = {"x": x} if entries is None else {}
    return run, of_x | {p.name: p.master for p in model.store.parameters}


def _loss_case(loss: Loss, shape: Shape, target: Any, backend: Backend, seed: int) -> tuple[Run, dict[str, Any]]:
    loss = copy.copy(loss).bind(backend)
    prediction = _writable(backend, host().normal(seed, "gradcheck x", tuple(shape)))
    given = backend.asarray(loss.random_target(tuple(shape), seed) if target is None else target)

    def run() -> tuple[float, dict[str, Any], float]:
        value, gradient = loss(prediction, given)
        return float(value), {"prediction": host().xp.array(backend.to_numpy(gradient))}, abs(float(value))

    return run, {"prediction": prediction}


def _writable(backend: Backend, array: Any) -> Any:
    own = backend.zeros(array.shape, "float64")
    own[...] = backend.asarray(array)
    return own


def _error(run: Run, tensor: Any, gradient: Any, key: str, seed: int, backend: Backend) -> float:
    """Relative error along one direction; another direction where this one crosses a kink."""
    xp = host().xp
    middle, _, terms = run()
    before = xp.array(backend.to_numpy(tensor))
    error = float("inf")
    for attempt in range(5):
        direction = host().normal(seed, f"gradcheck direction {key} {attempt}", before.shape)
        direction /= max(float(xp.sqrt(xp.sum(direction * direction))), 1e-300)
        values = []
        for sign in (1, -1):
            tensor[...] = backend.asarray(before + sign * STEP * direction)
            values.append(run()[0])
        tensor[...] = backend.asarray(before)
        slope = (values[0] - values[1]) / (2 * STEP)
        expected = float(xp.sum(gradient * direction))
        size = max(float(xp.sqrt(xp.sum(gradient * gradient))), 1e-12)
        error = max(abs(slope - expected) - LOST * terms, 0.0) / size if slope == slope else float("inf")
        if abs(values[0] + values[1] - 2 * middle) / STEP <= KINK * size:
            break
    return error
