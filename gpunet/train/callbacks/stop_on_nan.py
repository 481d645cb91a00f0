"""StopOnNaN."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gpunet.backend import Array
from gpunet.errors import NotFiniteError
from gpunet.formula import dtype_kind, total
from gpunet.train.callbacks.callback import Callback

if TYPE_CHECKING:
    from gpunet.layer import Layer
    from gpunet.train.run import Run


class StopOnNaN(Callback):
    """Ends a run whose loss or weights are no longer finite, and says where that began.

    Weights and the optimizer's state are set back to those before that step, so that the model is as it was. The step
    is done again on them to find the first tensor that is not finite: a layer's output in forward order, the loss, a
    gradient in backward order, or the updated weights.

    Costs a synchronisation and a copy of the weights in each step: for finding out, not for every run.
    Raises     NotFiniteError: at the end of the step; it names step, layer and tensor.
    """

    def on_begin(self, run: Run) -> None:
        """Remember the weights."""
        self._keep(run)

    def on_step(self, run: Run) -> None:
        """Look at the loss and the weights."""
        model, store = run.step.model, run.step.model.store
        kept = [store.values, *(state.value for state in model.states())]
        wrong = sum(
            float(store.fused(_not_finite)(values)) for values in kept if math.prod(values.shape)
        )  # synchronises
        loss = float(run.losses[-1])
        if math.isfinite(loss) and not wrong:
            self._keep(run)
            return
        model.set_weights(self._weights)
        where = first_not_finite(run)
        model.set_weights(self._weights)  # running statistics have seen the batch again
        if self._optimizer is not None:
            run.step.optimizer.set_state(self._optimizer)
        raise NotFiniteError(
            f"step {run.step.steps - 1}: {where}. The weights are those before this step. Try a smaller learning rate, "
            "clip_norm=1.0, or look for such numbers in the data."
        )

    def _keep(self, run: Run) -> None:
        self._weights = run.step.model.get_weights()
        self._optimizer = run.step.optimizer.get_state() if run.step.steps else None


def first_not_finite(run: Run) -> str:
    """The first tensor of the last step that is not finite, with the model's present weights."""
    step, (x, y, *weight) = run.step, run.batch
    model, backend, found = step.model, step.backend, list[str]()

    def look(tensor: Array) -> bool:
        return not bool(backend.xp.all(backend.xp.isfinite(backend.xp.astype(tensor, backend.xp.float32))))

    def observe(layer: Layer, output: Array) -> None:
        if not found and look(output):
            found.append(f"the output of {layer.title} is not finite")

    with backend.scope():
        x, y = model.convert(x, backend), step.loss.convert(y, backend, model.store.dtype)
        if model.indices() is None and look(x):
            return "the input is not finite"
        ctx = model.context(training=True, step=step.steps - 1, seed=step.seed, observe=observe)
        out, saved = model.forward(x, ctx)
        if found:
            return found[0]
        for state in model.states():
            if look(state.value):
                return f"'{state.name}' is not finite, though the layers' outputs are"
        if dtype_kind(y.dtype) == "float" and look(y):
            return "the target is not finite"
        given: Any = backend.asarray(weight[0], model.store.dtype) if weight else None
        value, dy = step.loss(out, y, sample_weight=given)
        if look(value) or look(dy):
            return f"{type(step.loss).__name__} is not finite, though the model's output is"
        model.backward(dy, saved, ctx)
        model.store.finish()
    for p in reversed(model.store.parameters):
        if p.trainable and look(p.grad):
            return f"the gradient of '{p.name}' is not finite, though the loss is"
    return f"{type(step.optimizer).__name__} made weights that are not finite of finite gradients"


def _not_finite(xp: Any, values: Array) -> Array:
    return total(xp.where(xp.isfinite(values), 0.0, 1.0))
