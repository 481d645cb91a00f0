"""`gpunet parity`: record a training run on one device, replay it on another."""

from __future__ import annotations

import importlib
import json as json_module
import sys
import traceback
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, TypeVar

import typer

from gpunet.backend import device as open_device
from gpunet.errors import ArgumentError, FileError, GpunetError
from gpunet.layer import Layer, everything
from gpunet.parity import Report
from gpunet.parity import compare as compare_devices
from gpunet.parity import record as record_run
from gpunet.parity import replay as replay_run
from gpunet.parity.cases import CASES, Parts
from gpunet.parity.recording import described

app = typer.Typer(help="Record a training run on one device, replay it on another. Status 1: they differ.")

CASE = f"{', '.join(CASES)}, or MODULE:FUNCTION, which returns (model, loss, optimizer, batches)."
IMPORT = typer.Option("--import", help="A module, or a .py file, with layers of your own; may be repeated.")
AS_JSON = typer.Option("--json", help="Print the report as JSON.")
SEED = typer.Option(min=0, max=2**32 - 1, help="Of dropout, and of weights not built.")
Result = TypeVar("Result")
FILE = typer.Argument(help="What gpunet parity record wrote.")


@app.command()
def record(
    case: Annotated[str, typer.Argument(help=CASE)],
    out: Annotated[str, typer.Option(help="The .safetensors file to write.")],
    device: Annotated[str, typer.Option(help="Where to train; by default where the model was built, or auto.")] = "",
    seed: Annotated[int, SEED] = 0,
) -> None:
    """Train on a device, and write what it computed."""
    if not out or not Path(out).absolute().parent.is_dir():
        raise ArgumentError(f"--out needs a file in a folder that is there, but got '{out}'.")
    made = parts(case)
    guarded(lambda: record_run(*made, out, device=device or None, seed=seed))
    with_layers = f" --case {case}" if case not in CASES else ""
    print(f"{out}: {Path(out).stat().st_size / 1000:.0f} kB. Compare with: gpunet parity replay {out}{with_layers}")


@app.command()
def replay(
    file: Annotated[str, FILE],
    device: Annotated[str, typer.Option(help="The device to compare.")] = "auto",
    modules: Annotated[list[str] | None, IMPORT] = None,
    case: Annotated[str, typer.Option(help="MODULE:FUNCTION, whose loss, optimizer and layers are used.")] = "",
    json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Compute a recorded run again, and say where and by how much it differs."""
    layers, loss, optimizer = custom(modules or []), None, None
    if case:
        model, loss, optimizer, _ = parts(case)
        layers += [type(one) for one in everything(model)]
    finish(guarded(lambda: replay_run(file, device, layers=layers, loss=loss, optimizer=optimizer)), json)


@app.command()
def compare(
    case: Annotated[str, typer.Argument(help=CASE)],
    devices: Annotated[str, typer.Option(help="Two, such as cpu,cuda.")] = "cpu,auto",
    seed: Annotated[int, SEED] = 0,
    json: Annotated[bool, AS_JSON] = False,
) -> None:
    """Train on two devices, and say where and by how much they differ."""
    first, _, second = (word.strip() for word in devices.partition(","))
    if not first or not second or "," in second:
        raise ArgumentError(f"--devices takes two devices such as cpu,cuda, but got '{devices}'.")
    if open_device(first) is open_device(second):
        raise ArgumentError(
            f"--devices {first},{second} are the same device here, {open_device(first).name}: that compares nothing. "
            "Name another, such as cpu,reference."
        )
    made = parts(case)
    finish(guarded(lambda: compare_devices(*made, devices=(first, second), seed=seed)), json)


@app.command()
def show(
    file: Annotated[str, FILE],
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a recording holds, and where it was made."""
    about = described(file)
    if json:
        print(json_module.dumps(about, indent=1))
        return
    for name, value in about.items():
        print(f"{name:<12}{', '.join(map(str, value)) if isinstance(value, list) else value}")


def finish(report: Report, json: bool) -> None:
    """Print a report; status 1 if the devices differ."""
    print(report.to_json() if json else report)
    if json:
        print(report.verdict, file=sys.stderr)
    if not report.ok:
        raise typer.Exit(1)


def guarded(work: Callable[[], Result]) -> Result:
    """Do what runs layers of a user: their errors end with a traceback and status 2, since 1 says that devices differ.

    Raises
        GpunetError: as it comes.
    """
    try:
        return work()
    except GpunetError:
        raise
    except Exception as error:
        traceback.print_exc()
        raise typer.Exit(2) from error


def parts(case: str) -> Parts:
    """Model, loss, optimizer and batches of a case by name, or of a function."""
    if case in CASES:
        return CASES[case]()
    module, _, function = case.rpartition(":")
    if not module:
        raise ArgumentError(f"there is no case '{case}'. Use one of: {', '.join(CASES)}, or MODULE:FUNCTION.")
    made = getattr(imported(module), function, None)
    if not callable(made):
        raise ArgumentError(f"{module} has no function '{function}'.")
    found = guarded(made)
    if not isinstance(found, tuple) or len(found) != 4:
        what = f"{len(found)} values" if isinstance(found, tuple) else f"a {type(found).__name__}"
        raise ArgumentError(f"{case} must return (model, loss, optimizer, batches), but returned {what}.")
    return found


def custom(modules: list[str]) -> list[type[Layer]]:
    """All classes of layers in modules."""
    found = [value for name in modules for value in vars(imported(name)).values()]
    return [one for one in found if isinstance(one, type) and issubclass(one, Layer)]


def imported(name: str) -> ModuleType:
    """A module by its name, also from the current folder, or a .py file.

    Raises
        FileError: there is none, or it cannot be imported.
    """
    try:
        if not name.endswith(".py"):
            sys.path.insert(0, "")
            return importlib.import_module(name)
        return from_file(Path(name))
    except (Exception, SystemExit) as error:  # of whatever the user's module does
        raise FileError(f"{name} cannot be imported: {type(error).__name__}: {error}.") from error


def from_file(path: Path) -> ModuleType:
    """A module from a .py file; known by its name, where classes look theirs up, unless that is another module's."""
    spec: Any = spec_from_file_location(path.stem, path)
    module, before = module_from_spec(spec), sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    finally:
        if before is not None:
            sys.modules[path.stem] = before
    return module
