"""Run folders: model, config, history, checkpoints."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from gpunet.cli.problem import Problem
from gpunet.errors import FileError
from gpunet.io import load
from gpunet.layers.sequential import Sequential
from gpunet.train.checkpoint import in_order, newest

MODEL, CONFIG, HISTORY, CHECKPOINTS = "model.safetensors", "config.json", "history.jsonl", "checkpoints"
OPTIONS = (
    "data",
    "hidden",
    "activation",
    "dropout",
    "optimizer",
    "learning_rate",
    "epochs",
    "batch_size",
    "seed",
    "task",
)
"""Of a run, in its config."""


def create(path: Path, config: dict[str, Any]) -> None:
    """A new run folder.

    Raises
        FileError: there is something in it, or it cannot be made.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise FileError(f"{path} is not empty. Choose another folder, or go on with its run: --resume {path}")
    try:
        path.mkdir(parents=True, exist_ok=True)
        temporary = path / f".{CONFIG}.tmp"
        temporary.write_text(json.dumps(config, indent=1))
        os.replace(temporary, path / CONFIG)
    except OSError as error:
        raise FileError(f"the folder {path} cannot be made: {error}. Choose another.") from error


def config_of(path: Path) -> dict[str, Any]:
    """The config of a run.

    Raises
        FileError: it is no run folder.
    """
    if not path.is_dir():
        raise FileError(f"{path} is no run: it is no folder. Make one: gpunet train --out {path}")
    try:
        config = json.loads((path / CONFIG).read_text())
        Problem(**config["problem"])
        if missing := [name for name in OPTIONS if name not in config]:
            raise KeyError(missing[0])
    except FileNotFoundError:
        raise FileError(f"{path} is no run: it has no {CONFIG}. Make one: gpunet train --out {path}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path / CONFIG} cannot be read: {type(error).__name__} {error}. Train anew.") from error
    return dict(config)


def checkpoint_of(path: Path) -> Path | None:
    """The newest checkpoint of a run; None if it has not come to one.

    Raises
        FileError: there were some, by its history.
    """
    if in_order(path / CHECKPOINTS):
        return newest(path / CHECKPOINTS)
    history = path / HISTORY
    lines = history.read_text(errors="replace").splitlines() if history.is_file() else []
    if len(lines) > 1 or (path / MODEL).exists():  # a kill can come between the first line and its checkpoint
        raise FileError(f"the checkpoints of {path} are gone. Restore them, or train anew in another folder.")
    return None


def open_run(path: Path, device: str) -> tuple[Sequential, Problem, dict[str, Any]]:
    """The model of a run, or of its newest checkpoint while there is none; its problem and config."""
    config = config_of(path)
    found: Path | None = path / MODEL
    if not (path / MODEL).is_file():
        found = checkpoint_of(path)
        if found is None:
            raise FileError(f"the run {path} has no model yet. Go on with it: gpunet train --resume {path}")
        print(f"the run {path} is not finished: this is its newest checkpoint, {found.name}", file=sys.stderr)
    return load(found, device=device), Problem(**config["problem"]), config
