"""Run folders: model, config, history, checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from gpunet.cli.problem import Problem
from gpunet.errors import FileError
from gpunet.io import load
from gpunet.layers.sequential import Sequential

MODEL, CONFIG, HISTORY, CHECKPOINTS = "model.safetensors", "config.json", "history.jsonl", "checkpoints"
OPTIONS = ("data", "hidden", "activation", "dropout", "optimizer", "learning_rate", "epochs", "batch_size", "seed")
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


def open_run(path: Path, device: str) -> tuple[Sequential, Problem, dict[str, Any]]:
    """The trained model of a run, its problem and config."""
    config = config_of(path)
    if not (path / MODEL).is_file():
        raise FileError(f"the run {path} is not finished. Go on with it: gpunet train --resume {path}")
    return load(path / MODEL, device=device), Problem(**config["problem"]), config
