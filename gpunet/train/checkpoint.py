"""Checkpoints: all that a training run needs to go on with the same bits."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpunet.errors import ArgumentError, FileError, ShapeError
from gpunet.io import files
from gpunet.io.model import CHECKPOINT_VERSION as VERSION
from gpunet.io.model import architecture

if TYPE_CHECKING:
    from gpunet.train.run import Run

SUFFIX = ".checkpoint"
KEYS = "learning_rate", "steps", "updates", "history", "first", "losses", "shares", "stopped", "callbacks"
"""Of the content, besides what is compared."""


def save(run: Run, path: Any) -> None:
    """Write a run to a file: weights, states, optimizer, steps, seed, place in the data, history, callbacks.

    Synchronises. The file is written whole or not at all.

    Raises
        FileError: the file cannot be written.
    """
    step, optimizer = run.step, run.step.optimizer
    with step.backend.scope():
        optimizer.prepare(step.model)
    rate, kept = optimizer.learning_rate, [callback.state() for callback in run.callbacks]
    run.losses = [float(loss) for loss in run.losses]
    content = {
        "architecture": architecture(step.model),
        "optimizer": describe(run),
        "learning_rate": None if callable(rate) else rate,
        "steps": step.steps,
        "updates": optimizer.updates,
        "seed": step.seed,
        "history": run.history.epochs,
        "first": run.first,
        "losses": run.losses,
        "shares": run.shares,
        "stopped": run.stopped,
        "plan": run.plan,
        "callbacks": [[type(c).__name__, state] for c, (state, _) in zip(run.callbacks, kept, strict=True)],
    }
    arrays = {f"weights/{name}": value for name, value in step.model.get_weights().items()}
    arrays |= {f"optimizer/{name}": value for name, value in optimizer.get_state().items()}
    if step.loss_scale is not None:
        arrays |= {f"loss_scale/{name}": value for name, value in step.loss_scale.get_state().items()}
    for number, (_, of_callback) in enumerate(kept):
        arrays |= {f"callbacks/{number}/{name}": value for name, value in of_callback.items()}
    files.write(path, "checkpoint", VERSION, content, arrays)


def describe(run: Run) -> list[Any]:
    """What must be the same for the optimizer's state to fit."""
    optimizer = run.step.optimizer
    return [type(optimizer).__name__, sorted(optimizer.state), list(optimizer.groups)]


class SavedRun:
    """A checkpoint that was read and is whole."""

    def __init__(self, path: Any):
        self.path = newest(path)
        self.content, self.arrays = files.read(self.path, "checkpoint", VERSION)

    def restore(self, run: Run) -> None:
        """Have a run stand where the saved one stood. All is checked before anything is changed.

        Raises
            FileError: the checkpoint is of another model, optimizer, seed or data.
        """
        try:
            self._restore(run)
        except (KeyError, TypeError, ArgumentError, ShapeError) as error:
            raise FileError(f"{self.path} does not fit this run: {error}") from error

    def _restore(self, run: Run) -> None:
        step, content = run.step, self.content
        with step.backend.scope():
            step.optimizer.prepare(step.model)
        saved, given = content["architecture"], architecture(step.model)
        self._compare("model", saved | {"frozen": ()}, given | {"frozen": ()})  # callbacks may thaw: it is a state
        self._compare("optimizer", content["optimizer"], describe(run))
        self._compare("seed", content["seed"], step.seed)
        self._compare("precision", bool(self._part("loss_scale")), step.loss_scale is not None)
        self._compare("plan", content["plan"], run.plan)
        if missing := [name for name in KEYS if name not in content]:
            raise KeyError(missing[0])
        if missing := sorted(set(step.model.get_weights()) - set(self._part("weights"))):
            raise KeyError(missing[0])
        step.optimizer.check_state(self._part("optimizer"))
        if step.loss_scale is not None and set(self._part("loss_scale")) != set(step.loss_scale.get_state()):
            raise KeyError("loss_scale")
        for p in step.model.store.parameters:
            if p.trainable == (p.name in saved["frozen"]):
                step.model.freeze(p.name, frozen=p.trainable)
        step.model.set_weights(self._part("weights"))
        step.optimizer.set_state(self._part("optimizer"))
        step.optimizer.updates, step.steps = content["updates"], content["steps"]
        if content["learning_rate"] is not None and not callable(step.optimizer.learning_rate):
            step.optimizer.learning_rate = content["learning_rate"]
        if step.loss_scale is not None:
            step.loss_scale.set_state(self._part("loss_scale"))
        run.history.epochs[:] = content["history"]
        run.epoch, run.first, run.stopped = len(run.history), content["first"], content["stopped"]
        run.losses, run.shares = content["losses"], content["shares"]
        self._restore_callbacks(run)

    def _compare(self, what: str, saved: Any, given: Any) -> None:
        if saved != given:
            raise FileError(
                f"{self.path} is from a run with another {what}: {_difference(saved, given)}. Use the same one, or "
                "start anew without resume."
            )

    def _part(self, name: str) -> dict[str, Any]:
        """Arrays whose names begin like this."""
        return {key.removeprefix(f"{name}/"): a for key, a in self.arrays.items() if key.startswith(f"{name}/")}

    def _restore_callbacks(self, run: Run) -> None:
        """In order, each from the next saved one of its class; those that are new start anew."""
        saved = list(enumerate(self.content["callbacks"]))
        for callback in run.callbacks:
            for place, (number, (name, state)) in enumerate(saved):
                if name == type(callback).__name__:
                    callback.restore(state, self._part(f"callbacks/{number}"))
                    del saved[: place + 1]
                    break


def newest(path: Any) -> Path:
    """The path itself; of a folder, its checkpoint with the most steps."""
    folder = Path(path)
    if not folder.is_dir():
        return folder
    found = in_order(folder)
    if not found:
        raise FileError(f"there is no checkpoint in {folder}. Give the folder of a Checkpoint callback, or a file.")
    return found[-1]


def steps_of(path: Path) -> int:
    """The number in a checkpoint's name."""
    return int(path.name.removeprefix("step-").removesuffix(SUFFIX))


def in_order(folder: Path) -> list[Path]:
    """The checkpoints of a folder by their steps; files that a user named otherwise are none of them."""
    numbered = [path for path in folder.glob(f"step-*{SUFFIX}") if path.name[5 : -len(SUFFIX)].isdecimal()]
    return sorted(numbered, key=steps_of)


def _difference(saved: Any, given: Any) -> str:
    """Where two descriptions begin to differ."""
    if isinstance(saved, dict) and isinstance(given, dict):
        for name in [*saved, *given]:
            if saved.get(name) != given.get(name):
                return f"{name}: {_difference(saved.get(name), given.get(name))}"
    if isinstance(saved, list) and isinstance(given, list) and len(saved) == len(given):
        for a, b in zip(saved, given, strict=True):
            if a != b:
                return _difference(a, b)
    return f"{saved!r:.100} there, {given!r:.100} here"


def stale(folder: Path) -> list[Path]:
    """What killed processes left of files that they were writing."""
    return [path for path in folder.glob(f".*{SUFFIX}.*.tmp") if not _alive(path)]


def _alive(path: Path) -> bool:
    """Is the process that writes it still there?"""
    number = path.name.split(".")[-2]
    try:
        os.kill(int(number), 0)
    except (ValueError, ProcessLookupError):
        return False
    except OSError:
        return True
    return True
