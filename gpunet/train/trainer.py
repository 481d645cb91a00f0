"""Trainer: the loop over epochs and batches. Everything it does is open to a loop written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from gpunet import metrics as metric_functions
from gpunet.backend import Backend, host
from gpunet.data import batches, split
from gpunet.errors import ArgumentError, GpunetError
from gpunet.layers.sequential import Sequential
from gpunet.losses import Loss
from gpunet.losses.loss import check_sample_weight
from gpunet.optim import Optimizer
from gpunet.train.history import History
from gpunet.train.progress import Progress
from gpunet.train.step import TrainStep


class Trainer:
    """Trains a model on arrays: ``history = Trainer(model, loss, optimizer).fit(x, y, epochs=20)``.

    metrics            names of what is reported besides the loss: "accuracy"
    device, seed, dtype are used to build a model that is not built; seed is also that of shuffling and dropout
    clip_norm          largest global norm of the gradients, or None
    """

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        *,
        metrics: Sequence[str] = (),
        device: str | Backend = "auto",
        seed: int = 0,
        dtype: str = "float32",
        clip_norm: float | None = None,
    ):
        metrics = [metrics] if isinstance(metrics, str) else list(metrics)
        for name in metrics:
            if name not in metric_functions.METRICS:
                known = ", ".join(metric_functions.METRICS)
                raise ArgumentError(f"there is no metric '{name}'. Use one of: {known}.")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.metrics, self.device, self.seed, self.dtype = metrics, device, seed, dtype
        self.clip_norm = clip_norm
        self.history = History()
        self._step: TrainStep | None = None

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        sample_weight: Any = None,
        validation_data: tuple[Any, ...] | None = None,
        validation_split: float | None = None,
        verbose: int = 1,
    ) -> History:
        """Train for some more epochs on host arrays; -> the history of all epochs so far.

        sample_weight  (n,): factors of the samples' losses, or None; metrics do not heed them
        validation_data, validation_split  held-out data (x, y) or (x, y, sample_weight), or the fraction to hold out
            (shuffled by the seed); its figures are reported as val_loss, val_<metric>
        verbose  1: progress on standard error.   0: silent

        Raises
            ArgumentError: arguments or data that do not fit; nothing is trained then.
            ShapeError: inputs or targets of a shape that does not fit.
        """
        data = _on_host(x, y, sample_weight)
        for name, count in (("epochs", epochs), ("batch_size", batch_size)):
            if not isinstance(count, Integral) or count < 1:
                raise ArgumentError(f"{name} must be a whole number, at least 1, but got {count!r}.")
        if validation_split is not None:
            if validation_data is not None:
                raise ArgumentError("give validation_data or validation_split, not both.")
            data, validation_data = split(*data, fraction=validation_split, seed=self.seed)
        step = self._prepared(*data)
        if validation_data is not None:
            validation_data = _on_host(*validation_data)
            self._check(*validation_data)

        x, y, *weight = data
        sample_weight = weight[0] if weight else None
        with Progress(epochs, -(-len(x) // batch_size), bool(verbose)) as progress:
            for epoch in range(epochs):
                losses, sizes = [], []
                number = len(self.history)
                for batch in batches(x, y, batch_size, seed=self.seed, epoch=number, sample_weight=sample_weight):
                    losses.append(step(*batch))
                    sizes.append(len(batch[0]))
                    progress.advance()
                values = [float(loss) for loss in losses]  # synchronises: once an epoch
                record = {"loss": sum(v * n for v, n in zip(values, sizes, strict=True)) / len(x)}
                if self.metrics:
                    record |= {name: v for name, v in self.evaluate(x, y).items() if name != "loss"}
                if validation_data is not None:
                    record |= {f"val_{name}": v for name, v in self.evaluate(*validation_data).items()}
                self.history.append(record)
                progress.epoch_done(epoch, record)
        return self.history

    def evaluate(self, x: Any, y: Any, sample_weight: Any = None) -> dict[str, float]:
        """{"loss": ..., metric: ...} on host arrays, without dropout."""
        x, y, *weight = _on_host(x, y, sample_weight)
        return metric_functions.evaluate(self.model.predict(x), y, self.loss, self.metrics, *weight)

    def _prepared(self, *data: Any) -> TrainStep:
        """The step; builds the model if that was not done. Data that do not fit leave it unbuilt."""
        unbuilt = self.model.built is None
        if unbuilt:
            self.model.build(data[0].shape[1:], device=self.device, seed=self.seed, dtype=self.dtype)
        try:
            self._check(*data)
        except GpunetError:
            if unbuilt:
                self.model.detach()  # as it was
            raise
        if self._step is None:
            self._step = TrainStep(self.model, self.loss, self.optimizer, clip_norm=self.clip_norm, seed=self.seed)
        return self._step

    def _check(self, x: Any, y: Any, sample_weight: Any = None) -> None:
        """Refuse inputs, targets and weights that do not fit the model."""
        self.model.check_input_shape(x.shape)
        self.model.check_indices(x)
        self.loss.check_targets(y, self.model.output_shape)
        if sample_weight is not None:
            check_sample_weight(sample_weight.shape, (len(x), *self.model.output_shape))


def _on_host(x: Any, y: Any, sample_weight: Any = None) -> tuple[Any, ...]:
    """Host arrays (x, y) or (x, y, sample_weight) of one length."""
    x, y = host().asarray(x), host().asarray(y)
    if x.shape[:1] != y.shape[:1] or x.shape[:1] in ((), (0,)):
        raise ArgumentError(
            f"there must be as many inputs as targets, at least one, but got inputs {x.shape} and targets {y.shape}."
        )
    if sample_weight is None:
        return x, y
    weight = host().asarray(sample_weight)
    if weight.shape[:1] != x.shape[:1] or not host().xp.isfinite(weight).all():
        raise ArgumentError(
            f"sample_weight needs one finite number for each of the {len(x)} samples, but got {weight.shape} from "
            f"{weight.min() if weight.size else 0} to {weight.max() if weight.size else 0}."
        )
    return x, y, weight
