"""Trainer: the loop over epochs and batches. Everything it does is open to a loop written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, TypeAlias

from gpunet import layers
from gpunet import metrics as metric_functions
from gpunet.backend import Backend, host
from gpunet.data import Arrays, Batches
from gpunet.errors import ArgumentError, NotBuiltError
from gpunet.layers.sequential import Sequential
from gpunet.losses import Loss
from gpunet.losses.loss import check_sample_weight
from gpunet.optim import Optimizer
from gpunet.train import checkpoint
from gpunet.train.callbacks import Callback
from gpunet.train.history import History
from gpunet.train.interrupt import Interrupts
from gpunet.train.progress import Progress
from gpunet.train.run import Run
from gpunet.train.step import TrainStep, check_ending, check_kinds

Data: TypeAlias = Arrays | Batches


class Trainer:
    """Trains a model: ``history = Trainer(model, loss, optimizer).fit(x, y, epochs=20)``.

    metrics            what is reported besides the loss: names such as "accuracy", or functions as in gpunet.metrics
    device, seed, dtype are used to build a model that is not built; seed is also that of shuffling and dropout
    clip_norm, clip_value, accumulate  as in TrainStep
    """

    def __init__(
        self,
        model: Sequential,
        loss: Loss,
        optimizer: Optimizer,
        *,
        metrics: Sequence[str | Callable[..., float]] | str = (),
        device: str | Backend = "auto",
        seed: int = 0,
        dtype: str = "float32",
        clip_norm: float | None = None,
        clip_value: float | None = None,
        accumulate: int = 1,
    ):
        self.metrics = metric_functions.resolve([metrics] if isinstance(metrics, str) else list(metrics))
        check_kinds(model, loss, optimizer)
        check_ending(model, loss)
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.device, self.seed, self.dtype = device, seed, dtype
        self.options: dict[str, Any] = {"clip_norm": clip_norm, "clip_value": clip_value, "accumulate": accumulate}
        self.history = History()
        self._step: TrainStep | None = None
        self._run: Run | None = None
        self._trained = False  # has the present fit done a step?

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        sample_weight: Any = None,
        validation_data: Any = None,
        validation_split: float | None = None,
        callbacks: Sequence[Callback] = (),
        resume: Any = None,
        verbose: int = 1,
    ) -> History:
        """Train for some more epochs; -> the history of all epochs so far.

        x, y           host arrays, memory-mapped ones among them; or x alone: something that yields batches (x, y) or
            (x, y, sample_weight), once an epoch, in its own order and size: a list, a DataLoader, a function that
            makes a generator. Metrics of the training data are reported for arrays only.
        sample_weight  (n,): factors of the samples' losses, or None; metrics do not heed them
        validation_data, validation_split  held-out data (x, y) or (x, y, sample_weight) or batches, or the fraction to
            hold out (shuffled by the seed); its figures are reported as val_loss, val_<metric>
        resume         a checkpoint, or a folder with some: go on from there to the end that was meant, with the same
            bits on a CPU. Say the same model, optimizer, data and callbacks as then.
        verbose        1: progress on standard error.   0: silent

        Ctrl-C ends the run after the present step; a second one at once.

        Raises
            ArgumentError: arguments or data that do not fit; nothing is trained then.
            ShapeError: inputs or targets of a shape that does not fit.
            FileError: the checkpoint is missing, damaged, or of another run.
        """
        for name, count in (("epochs", epochs), ("batch_size", batch_size)):
            if not isinstance(count, Integral) or count < 1:
                raise ArgumentError(f"{name} must be a whole number, at least 1, but got {count!r}.")
        saved = None if resume is None else checkpoint.SavedRun(resume)
        check_callbacks(callbacks)
        data: Data = self._data(x, y, sample_weight)
        held_out: Data | None = None
        if validation_split is not None:
            if validation_data is not None:
                raise ArgumentError("give validation_data or validation_split, not both.")
            if isinstance(data, Batches):
                raise ArgumentError("validation_split needs arrays. Give validation_data for batches.")
            data, held_out = data.split(validation_split, self.seed)
        elif validation_data is not None:
            given = validation_data if isinstance(validation_data, tuple) else (validation_data,)
            if len(given) > 3:
                raise ArgumentError(f"validation_data is (x, y) or (x, y, sample_weight), but has {len(given)} parts.")
            held_out = self._data(*given)
        unbuilt, self._trained = self.model.built is None, False
        try:
            run = Run(self._prepared(data, held_out), callbacks=callbacks, history=self.history)
            run.plan |= {"data": data.described(), "batch size": batch_size if isinstance(data, Arrays) else None}
            if saved is not None:
                saved.restore(run)
            self._run = run
            self._train(run, data, held_out, run.first + epochs, batch_size, bool(verbose))
        except Exception:
            if unbuilt and not self._trained:
                self._forget()  # the model is as it was
            raise
        return self.history

    def _train(self, run: Run, data: Data, held_out: Data | None, last: int, batch_size: int, verbose: bool) -> None:
        """The loop over epochs and batches."""
        total = None if data.samples is None else (last - run.epoch) * data.samples
        with run, Interrupts() as interrupts, Progress(last, total, verbose) as progress:
            while run.epoch < last and (run.batches or not run.stopped):
                rest = data.shuffled(batch_size, self.seed, run.epoch, skip=run.batches)
                for batch in () if run.stopped else rest:  # it was stopped, and a checkpoint written in this epoch
                    loss = run.step(*batch)
                    self._trained = True
                    run.after_step(loss, batch)
                    progress.advance(len(batch[0]))
                    interrupts.check()
                    if run.stopped:
                        break
                record = self._figures(run, data, held_out)
                run.after_epoch(record)
                progress.epoch_done(run.epoch, record)
                interrupts.check()

    def save_checkpoint(self, path: Any) -> None:
        """Write where the last ``fit`` stands, to go on by ``fit(resume=path)``.

        Raises
            NotBuiltError: nothing was trained yet.   FileError: the file cannot be written.
        """
        if self._run is None:
            raise NotBuiltError("there is nothing to save yet. Call fit first.")
        checkpoint.save(self._run, path)

    def evaluate(self, x: Any, y: Any = None, sample_weight: Any = None) -> dict[str, float]:
        """{"loss": ..., metric: ...} on host arrays, or on something that yields batches; without dropout.

        Figures are those of the whole, so all outputs and targets are in the host's memory at once.
        """
        return self._evaluate(self._data(x, y, sample_weight))

    def predict(self, x: Any, *, batch_size: int = 256) -> Any:
        """Outputs for a host array: logits, where the loss takes those."""
        return self.model.predict(x, batch_size=batch_size)

    def predict_proba(self, x: Any, *, batch_size: int = 256) -> Any:
        """Probabilities: the activation that belongs to the loss, of the outputs.

        Raises
            ArgumentError: the loss has none.
        """
        if self.loss.activation is None:
            raise ArgumentError(
                f"{type(self.loss).__name__} has no activation that makes probabilities of outputs. Use predict."
            )
        activation = getattr(layers, self.loss.activation)()
        return host().fuse(activation.formula)(self.predict(x, batch_size=batch_size))

    def _figures(self, run: Run, data: Data, held_out: Data | None) -> dict[str, float]:
        """Of an epoch that is done."""
        record = {"loss": run.loss()}  # synchronises: once an epoch
        if self.metrics and isinstance(data, Arrays):
            record |= {name: value for name, value in self._evaluate(data).items() if name != "loss"}
        if held_out is not None:
            record |= {f"val_{name}": value for name, value in self._evaluate(held_out).items()}
        return record

    def _evaluate(self, data: Data) -> dict[str, float]:
        outputs, rest = [], []
        for x, *others in data.in_order(256):
            outputs.append(self.model.predict(x))
            rest.append(others)
        if len({len(others) for others in rest}) > 1:
            raise ArgumentError("some batches have a sample_weight and others have none. Give all of them one: ones.")
        concatenate = host().xp.concatenate
        y, *weight = (concatenate([host().asarray(part) for part in parts]) for parts in zip(*rest, strict=True))
        return metric_functions.evaluate(concatenate(outputs), y, self.loss, self.metrics, *weight)

    @staticmethod
    def _data(x: Any, y: Any = None, sample_weight: Any = None) -> Data:
        """Arrays of one length, or batches."""
        if y is None:
            if hasattr(x, "shape"):
                raise ArgumentError("there are inputs x but no targets y. Give both, or batches (x, y).")
            if sample_weight is not None:
                raise ArgumentError("sample_weight belongs to arrays. Let the batches be (x, y, sample_weight).")
            return Batches(x)
        return Arrays(*_on_host(x, y, sample_weight))

    def _prepared(self, data: Data, held_out: Data | None) -> TrainStep:
        """The step; builds the model if that was not done."""
        if self.model.built is None:
            first = data.arrays if isinstance(data, Arrays) else data.first()
            self.model.build(host().asarray(first[0]).shape[1:], device=self.device, seed=self.seed, dtype=self.dtype)
        for part in (data, held_out):
            if isinstance(part, Arrays):
                self._check(*part.arrays)
        if self._step is None:
            self._step = TrainStep(self.model, self.loss, self.optimizer, seed=self.seed, **self.options)
        return self._step

    def _forget(self) -> None:
        """Leave a model unbuilt that was so before, and the optimizer without it."""
        self.model.detach()
        self.optimizer.detach()
        self._step = self._run = None
        self.history.epochs.clear()  # what a checkpoint brought

    def _check(self, x: Any, y: Any, sample_weight: Any = None) -> None:
        """Refuse inputs, targets and weights that do not fit the model."""
        self.model.check_input_shape(x.shape)
        self.model.check_indices(x)
        self.loss.check_targets(y, self.model.output_shape)
        if sample_weight is not None:
            check_sample_weight(sample_weight.shape, (len(x), *self.model.output_shape))


def check_callbacks(callbacks: Any) -> None:
    """Refuse what are no callbacks."""
    wrong = (
        callbacks if not isinstance(callbacks, list | tuple) else [c for c in callbacks if not isinstance(c, Callback)]
    )
    if wrong or not isinstance(callbacks, list | tuple):
        found = wrong[0] if isinstance(wrong, list) else wrong
        raise ArgumentError(f"callbacks is a list such as [EarlyStopping(patience=5)], but got {found!r}.")


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
    if weight.shape[:1] != x.shape[:1] or not host().xp.isfinite(weight).all() or weight.min() < 0:
        raise ArgumentError(
            f"sample_weight needs one finite number >= 0 for each of the {len(x)} samples, but got {weight.shape} from "
            f"{weight.min() if weight.size else 0} to {weight.max() if weight.size else 0}."
        )
    return x, y, weight
