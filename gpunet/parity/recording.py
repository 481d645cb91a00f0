"""Recordings of training runs, replayed on another device; two devices compared at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gpunet.backend import Backend
from gpunet.backend import device as open_device
from gpunet.errors import ArgumentError, DeviceError, FileError, GpunetError
from gpunet.io import files
from gpunet.layer import Layer
from gpunet.layers.sequential import Sequential
from gpunet.losses import Loss
from gpunet.optim import Optimizer
from gpunet.parity.budgets import EPS
from gpunet.parity.case import Arrays, Case, checked
from gpunet.parity.environment import environment
from gpunet.parity.judge import Judge
from gpunet.parity.measure import measure, part
from gpunet.parity.report import Report
from gpunet.parity.settings import constructed, settings
from gpunet.parity.truth import precision

BROKEN = (GpunetError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, StopIteration)
"""What a recording can lead to whose content was made up: its checksum can be, too."""
VERSION = 1
"""Of the file: raised when names or meanings of its entries change."""


def record(
    model: Sequential,
    loss: Loss,
    optimizer: Optimizer,
    batches: Iterable[Any],
    path: Any,
    *,
    device: str | Backend | None = None,
    seed: int = 0,
) -> None:
    """Train a copy of the model on a device, a step for each batch, and write what it computed.

    The file has the architecture, the batches, initial weights; of the first step every layer's output and every
    gradient; of the first, the third and the last step loss, gradients, weights and the optimizer's buffers; the losses
    of all steps; and where that was. Model, loss and optimizer stay as they are.

    batches  a list of (x, y) or (x, y, sample_weight), host arrays
    device   the model's own by default
    seed     of dropout; of the initial weights, too, if the model is not built

    Raises
        ArgumentError: there are no batches, or a layer has an argument that a file cannot hold.
        FileError: the file cannot be written.
    """
    backend = open_device(("auto" if model.built is None else model.backend) if device is None else device)
    case = Case.of(model, loss, optimizer, batches, seed)
    content = {
        "architecture": case.architecture,
        "custom": [one.__name__ for one in case.custom],
        "loss": settings(loss),
        "optimizer": settings(optimizer),
        "seed": seed,
        "steps": len(case.batches),
        "precision": precision(case, backend),
        "name": label(device, backend),
        "environment": environment(backend),
    }
    arrays = {f"batches/{i}/{n}": a for i, batch in enumerate(case.batches) for n, a in enumerate(batch)}
    arrays |= {f"initial/{name}": w for name, w in case.weights.items()}
    arrays |= {f"results/{name}": a for name, a in measure(case, backend).items()}
    files.write(path, "recording", VERSION, content, arrays)


def replay(
    path: Any,
    device: str | Backend = "auto",
    *,
    layers: Sequence[type[Layer]] = (),
    loss: Loss | None = None,
    optimizer: Optimizer | None = None,
) -> Report:
    """Compute a recorded run again, on another device, and compare.

    layers           classes of layers that are not gpunet's
    loss, optimizer  where those of the recording are not gpunet's, or were made with a function

    Raises
        FileError: there is no such recording, it is of another version, was changed or is not whole, or needs a class.
        DeviceError: the device is unknown or not usable.
    """
    case, recorded, about = opened(path, layers, loss, optimizer)
    backend = open_device(device)
    try:
        return judged(case, recorded, backend, about, label(device, backend))
    except (DeviceError, FileError):
        raise
    except BROKEN as error:
        raise FileError(
            f"{path} cannot be replayed: {type(error).__name__}: {error} Record it anew, or pass the classes, loss and "
            "optimizer that it was recorded with."
        ) from error


def compare(
    model: Sequential,
    loss: Loss,
    optimizer: Optimizer,
    batches: Iterable[Any],
    *,
    devices: tuple[str | Backend, str | Backend],
    seed: int = 0,
) -> Report:
    """Train copies of the model on two devices and compare; the arguments are those of ``record``."""
    if not isinstance(devices, list | tuple) or len(devices) != 2:
        raise ArgumentError(f'devices takes two, such as ("cpu", "cuda"), but got {devices!r:.100}.')
    first, second = (open_device(one) for one in devices)
    case = Case.of(model, loss, optimizer, batches, seed)
    about = {"environment": environment(first), "precision": precision(case, first), "name": label(devices[0], first)}
    return judged(case, measure(case, first), second, about, label(devices[1], second))


def judged(case: Case, results: Arrays, backend: Backend, about: dict[str, Any], name: str) -> Report:
    """The report on what a device computes, given what another one computed."""
    coarser = about["precision"] if about["precision"] == "tf32" else precision(case, backend)
    devices = about["name"], name if about["name"] != name else f"{name} again"
    own = measure(case, backend, results)
    rows, truth = Judge(case, devices, (results, own), coarser).rows()
    losses = {devices[0]: results["losses"].tolist(), devices[1]: own["losses"].tolist(), "float64": truth}
    return Report(devices, coarser, tuple(rows), losses, (about["environment"], environment(backend)))


def label(device: str | Backend | None, backend: Backend) -> str:
    """What a device is called in a report: as it was given."""
    return device if isinstance(device, str) and device != "auto" else backend.name


def described(path: Any) -> dict[str, Any]:
    """What a recording holds, and where it was made.

    Raises
        FileError: it is no recording.
    """
    content, arrays = files.read(path, "recording", VERSION)
    try:
        model = content["architecture"]
        losses = arrays["results/losses"].tolist()
        return dict(content["environment"]) | {
            "layers": [next(iter(one.values())) for one in model["model"]["config"]["layers"]],
            "inputs": list(model["shape"]),
            "dtype": model["dtype"],
            "precision": content["precision"],
            **{kind: [next(iter(content[kind].values()))] for kind in ("loss", "optimizer")},
            "steps": len(losses),
            "losses": [losses[0], losses[-1]],
        }
    except BROKEN as error:
        raise FileError(f"{path}: it is no recording: {error!r}. Record it anew.") from error


def opened(
    path: Any, layers: Sequence[type[Layer]] = (), loss: Loss | None = None, optimizer: Optimizer | None = None
) -> tuple[Case, Arrays, dict[str, Any]]:
    """The run of a recording, what was computed, and where."""
    content, arrays = files.read(path, "recording", VERSION)
    try:
        custom, steps = [str(name) for name in content["custom"]], int(content["steps"])
        given = {one.__name__ for one in layers}
        if missing := [name for name in custom if name not in given]:
            names = ", ".join(missing)
            passed = f"; those passed are {', '.join(sorted(given))}" if given else ""
            raise FileError(
                f"it has layers that are not gpunet's: {names}{passed}. Pass their classes: layers=[{names}]; on the "
                "command line the module: --import MODULE."
            )
        if not 0 < steps <= len(arrays):
            raise ValueError(f"{steps} steps")
        of_steps = [part(arrays, f"batches/{i}/") for i in range(steps)]
        case = Case(
            dict(content["architecture"]),
            part(arrays, "initial/"),
            constructed(content["loss"]) if loss is None else loss,
            constructed(content["optimizer"]) if optimizer is None else optimizer,
            checked([tuple(one[name] for name in sorted(one)) for one in of_steps]),
            int(content["seed"]),
            layers,
        )
        about = {"environment": dict(content["environment"]), "precision": content["precision"]}
        if about["precision"] not in EPS:
            raise ValueError(f"precision {about['precision']!r}")
        if arrays["results/losses"].shape != (steps,):
            raise ValueError(f"{steps} steps, losses {arrays['results/losses'].shape}")
        return case, part(arrays, "results/"), about | {"name": f"{content['name']}, recorded"}
    except BROKEN as error:
        reason = str(error) if isinstance(error, FileError) else f"it is no recording: {error!r}. Record it anew."
        raise FileError(f"{path}: {reason}") from error
