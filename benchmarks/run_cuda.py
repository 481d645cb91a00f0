"""Training steps and kernels on a GPU, beside PyTorch and what the GPU can do at most.

python benchmarks/run_cuda.py [--quick] [--cases mlp kernels] [--json benchmarks/results/cuda.json]
"""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import race
from cuda_peers import PEERS, PRECISIONS, Setting

import gpunet as gn
from gpunet.errors import DeviceError

RESULTS = Path(__file__).parent / "results" / "cuda.json"
SELDOM = ("compiled-graph", "pinned-graph")
LEFT_OUT = {"regularised": ("pinned-graph",), "host": ("compiled-graph",)}
"""Contenders left out by default: compiling takes seconds a row, and pinned memory is for inputs on the host."""
NAMES = ("kernels", "mlp", "wide", "large", "regularised", "host")


def options_of(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Training steps and kernels on a GPU.")
    parser.add_argument("--cases", nargs="+", choices=NAMES, default=list(NAMES), help="default: all")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batch", type=int, nargs="+", help="of the training steps; default: those of each case")
    parser.add_argument("--peers", nargs="+", choices=PEERS, help="default: all, compiled-graph for regularised only")
    parser.add_argument("--rounds", type=int, default=5, help="at least 2; default 5")
    parser.add_argument("--minutes", type=float, default=8.0, help="rows not begun by then are left out; default 8")
    parser.add_argument("--quick", action="store_true", help="two rounds, one batch a case: does it run?")
    parser.add_argument("--json", type=Path, metavar="FILE", help=f"default: results/{RESULTS.name}; none with --quick")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")
    if options.quick:
        options.rounds = 2
    elif options.device == "cuda" and options.json is None:
        options.json = RESULTS
    return options


def why_not(device: str) -> str | None:
    """Why nothing can be measured here; None if it can."""
    if not find_spec("torch"):
        return "PyTorch is not installed: it is the peer, and measures what the GPU can do"
    if device == "cpu":
        return None
    import torch

    try:
        gn.device("cuda")
    except DeviceError as error:
        return str(error)
    return None if torch.cuda.is_available() else f"PyTorch {torch.__version__} sees no GPU"


def main(arguments: list[str] | None = None) -> None:
    options = options_of(arguments)
    if reason := why_not(options.device):
        sys.exit(f"no benchmark on a GPU: {reason}")
    # no threads of the contender before spin on; on a CPU the script is only tried
    race.TURN, race.PAUSE = (0.06, 0.005) if options.device == "cuda" else (0.002, 0.0)
    import cuda_ceilings
    from cuda_report import Report, free_memory

    about = {key: value for key, value in vars(options).items() if key != "json"}
    report = Report(options.device, about, options.json, options.minutes)
    tiny = options.device == "cpu"
    ceilings = cuda_ceilings.measure(options.device, tiny)
    report.facts["ceilings"] = ceilings.about()
    report.say(f"{report.facts['device']}: {ceilings.about()}")
    for label, run in rows(options, report, ceilings):
        report.say(label)
        if report.time_is_up():
            report.add({"kind": "none", "name": label, "not_available": {"all": "not measured: the time was up"}})
            continue
        free_memory(options.device)
        run()
    free_memory(options.device)
    report.facts["ceilings_after"] = cuda_ceilings.measure(options.device, tiny).about()
    report.say(f"at the end: {report.facts['ceilings_after']}")
    report.write()
    if report.disagreed:
        sys.exit("contenders disagree: see above")


def rows(options: argparse.Namespace, report: Any, ceilings: Any) -> Any:
    """(label, function that measures a row), in order."""
    import cuda_kernels
    import cuda_steps

    if "kernels" in options.cases:
        for kernel in cuda_kernels.KERNELS:
            yield (
                f"{kernel.name} {kernel.shape}",
                lambda k=kernel: cuda_kernels.run_kernel(report, k, options.device, ceilings, options.rounds),
            )
    for name in [n for n in options.cases if n != "kernels"]:
        batches = options.batch or cuda_steps.case_of(name, options.device == "cpu").batches
        for batch in batches[:1] if options.quick else batches:
            for precision in options.precisions:
                setting = Setting(options.device, precision, host_inputs=name == "host")
                peers = options.peers or [p for p in PEERS if p not in LEFT_OUT.get(name, SELDOM)]
                yield (
                    f"{name}, batch {batch}, {precision}",
                    lambda n=name, b=batch, s=setting, p=peers: cuda_steps.run_step(
                        report, n, b, s, ["gpunet", *p], ceilings, options.rounds
                    ),
                )


if __name__ == "__main__":
    main()
