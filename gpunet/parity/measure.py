"""What a device computes of a training run: layer by layer, and in whole steps.

Names of the results: "layers/0/output", "layers/0/prediction" (outside training), "layers/0/input gradient",
"layers/gradient/0.weight", "layers/loss", "layers/loss gradient"; of the first, the third and the last step "first/…",
"third/…", "last/…": "loss", "output", "input gradient", "gradient/…", "weight/…", "slot/…" of the optimizer, and
"before/…" it; "losses", "end/weight/…" of the run.
"""

from __future__ import annotations

from typing import Any

from gpunet.backend import Backend, host
from gpunet.formula import dtype_kind
from gpunet.layers.sequential import Sequential
from gpunet.losses import Loss
from gpunet.parity.case import Arrays, Case
from gpunet.train.step import TrainStep

HALF_SCALE = 4096.0
"""Of the loss where layers compute with float16, whose small gradients would be 0."""


def measure(case: Case, backend: Backend, given: Arrays | None = None) -> Arrays:
    """All results of a device.

    given  those of another device: then each layer gets the other's inputs, and the last step begins where the other's
           did, so that what differs is what this layer, or this step, did
    """
    half = case.dtype == "mixed_float16"
    model, batch = case.model(backend), case.batches[0]
    results = layer_by_layer(model, case.new_loss(), in_type(model, batch), seed=case.seed, given=given, half=half)
    return {f"layers/{name}": a for name, a in results.items()} | steps(case, backend, given)


def layer_by_layer(
    model: Sequential,
    loss: Loss,
    batch: tuple[Any, ...],
    *,
    seed: int,
    step: int = 0,
    given: Arrays | None = None,
    factors: Arrays | None = None,
    half: bool = False,
) -> Arrays:
    """Forward and backward of a step, one layer after another, with nothing merged.

    given    what comes out of a layer is replaced by these before the next one gets it
    factors  or is multiplied by these
    half     the loss is scaled up, for gradients in float16
    """
    backend, found = model.backend, Arrays()
    loss.bind(backend)

    def keep(name: str, array: Any) -> Any:
        """Keep a result; -> what the next layer gets instead of it."""
        found[name] = to_host(backend, array)
        if given is not None:
            return backend.asarray(host().xp.array(given[f"layers/{name}"]), model.dtype)  # a layer may write there
        return array if factors is None else array * backend.asarray(factors[name], model.dtype)

    with backend.scope():
        x, y, weight = on_device(model, loss, copies(batch))
        ctx = model.context(training=True, step=step, seed=seed, observe=lambda layer, output: None)
        predicting = model.context(training=False, observe=ctx.observe)
        saved = []
        for number, layer in enumerate(model.layers):
            before = to_host(backend, x)
            again = (
                backend.asarray(host().xp.array(before), model.dtype) if number else model.convert(batch[0], backend)
            )
            output, kept = layer.forward(x, ctx)
            saved.append((kept, x, before))
            x = keep(f"{number}/output", output)
            found[f"{number}/prediction"] = to_host(backend, layer.forward(again, predicting)[0])
        scale = backend.scalar(HALF_SCALE, model.store.dtype) if half else None
        value, dy = loss(x, y, sample_weight=weight, scale=scale)
        found["loss"] = to_host(backend, value)
        dy, inner = keep("loss gradient", dy), ctx.inner()
        for number in reversed(range(len(saved))):
            (kept, x, before), dy_before = saved[number], to_host(backend, dy)
            dx = model.layers[number].backward(dy, kept, inner)
            changed = differing(to_host(backend, x), before) + differing(to_host(backend, dy), dy_before)
            found[f"{number}/inputs changed"] = host().xp.asarray(float(changed))
            if dx is None:  # indices have no gradient
                break
            dy = keep(f"{number}/input gradient", dx)
    return found | {f"gradient/{name}": g for name, g in model.get_gradients().items()}


def judged_steps(count: int) -> dict[int, str]:
    """Those steps of a run that are looked at: by the third one a GPU has recorded its work, if shapes are the same."""
    return {0: "first"} | ({2: "third"} if count > 3 else {}) | ({count - 1: "last"} if count > 1 else {})


def steps(case: Case, backend: Backend, given: Arrays | None = None) -> Arrays:
    """The run as it is: all steps, merged and, on a GPU, recorded."""
    model = case.model(backend)
    step = TrainStep(model, case.new_loss(), case.new_optimizer(), seed=case.seed)
    found, losses, judged = Arrays(), [], judged_steps(len(case.batches))
    for number, batch in enumerate(case.batches):
        name = judged.get(number)
        before = state_of(step) if name and number else {}
        found |= {f"{name}/before/{key}": a for key, a in before.items()}
        losses.append(step(*in_type(model, batch)))
        if name is None:
            continue
        if given is None or not number:
            found |= after(name, step, losses[-1])
        else:
            here, start = state_of(step), part(given, f"{name}/before/")
            stand_at(step, start, number)  # where the other device stood
            found |= after(name, step, step(*in_type(model, batch)))
            stand_at(step, here, number + 1)  # and on with its own run
    found["losses"] = host().xp.asarray([float(to_host(backend, loss)) for loss in losses])
    found |= {f"end/weight/{name}": w for name, w in model.get_weights().items()}
    for number, name in judged.items():
        start = part(given or found, f"{name}/before/weight/") or case.weights
        found |= {f"{name}/{key}": a for key, a in merged(case, backend, start, number).items()}
    return found


def merged(case: Case, backend: Backend, weights: Arrays, number: int) -> Arrays:
    """Output and the gradient of the input of a step: what the step itself does not show."""
    model, loss = case.model(backend), case.new_loss().bind(backend)
    model.set_weights(weights)
    with backend.scope():
        x, y, weight = on_device(model, loss, in_type(model, case.batches[number]))
        ctx = model.context(training=True, step=number, seed=case.seed, needs_input_grad=True)
        output, saved = model.forward(x, ctx)
        found = {"output": to_host(backend, output)} if model.layers else {}
        if model.layers and case.dtype != "mixed_float16":  # whose gradients need the step's scale
            dx = model.backward(loss(output, y, sample_weight=weight)[1], saved, ctx)
            found |= {} if dx is None else {"input gradient": to_host(backend, dx)}
    return found


def after(when: str, step: TrainStep, loss: Any) -> Arrays:
    """What a step did."""
    found = {"loss": to_host(step.backend, loss)} | state_of(step)
    found |= {f"gradient/{name}": g for name, g in step.model.get_gradients().items()}
    return {f"{when}/{name}": a for name, a in found.items()}


def state_of(step: TrainStep) -> Arrays:
    """Weights and the optimizer's buffers."""
    state = {f"weight/{name}": w for name, w in step.model.get_weights().items()}
    return state | {f"slot/{name}": a for name, a in step.optimizer.get_state().items()}


def stand_at(step: TrainStep, state: Arrays, number: int) -> None:
    """Have a step stand somewhere in a run."""
    step.model.set_weights(part(state, "weight/"))
    step.optimizer.set_state(part(state, "slot/"))
    step.optimizer.updates = step.steps = number


def part(arrays: Arrays, start: str) -> Arrays:
    """Those whose names begin like this, without it."""
    return {name.removeprefix(start): a for name, a in arrays.items() if name.startswith(start)}


def on_device(model: Sequential, loss: Loss, batch: tuple[Any, ...]) -> tuple[Any, Any, Any]:
    """x, y and the weights or None, as a step takes them."""
    x, y, *weight = batch
    backend, dtype = model.backend, model.store.dtype
    given = backend.asarray(weight[0], dtype) if weight else None
    return model.convert(x, backend), loss.convert(y, backend, dtype), given


def in_type(model: Sequential, batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """Copies whose floats have the model's type: a device that writes its inputs shall not change the case."""
    dtype = model.store.dtype
    return tuple(host().asarray(a, dtype) if dtype_kind(a.dtype) == "float" else a for a in copies(batch))


def copies(batch: tuple[Any, ...]) -> tuple[Any, ...]:
    """Fresh host arrays."""
    return tuple(host().xp.array(a) for a in batch)


def differing(a: Any, b: Any) -> int:
    """How many elements differ; NaN is NaN."""
    return int(host().xp.sum((a != b) & ~((a != a) & (b != b))))


def to_host(backend: Backend, array: Any) -> Any:
    """A copy on the host, which keeps half precision as float32. Synchronises: it is wanted there."""
    xp = host().xp
    copied = xp.array(backend.to_numpy(array))
    return copied if copied.dtype in (xp.float32, xp.float64) else xp.astype(copied, xp.float32)
