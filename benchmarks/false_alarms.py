"""How often do the checks of gpunet.testing fail although nothing is wrong? Each repetition draws other inputs.

    python benchmarks/false_alarms.py                  # 200 repetitions on the CPU
    GPUNET_JIT=0 python benchmarks/false_alarms.py     # without Numba
    python benchmarks/false_alarms.py --device cuda --repetitions 20

A check that fails is printed with its seed. Then the script exits with 1, which says that a budget is too tight, or
that something is wrong after all.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gpunet as gn
from gpunet.testing import layers, losses, optimizers

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from layer_specs import LAYERS
from loss_specs import LOSSES
from optimizer_specs import OPTIMIZERS

SUITES = [(layers.CHECKS, LAYERS), (losses.CHECKS, LOSSES), (optimizers.CHECKS, OPTIMIZERS)]


def all_checks() -> Iterator[tuple]:
    """(check, case, data type) of all that gpunet tests of its own."""
    for checks, cases in SUITES:
        for check in checks:
            for case in cases:
                if check.applies(case.spec):
                    yield from ((check, case, dtype) for dtype in check.dtypes)


def failed(device: gn.Backend, seed: int) -> list[str]:
    """What the checks say that fail with this seed."""
    messages = []
    for check, case, dtype in all_checks():
        try:
            check(case, device, dtype, seed)
        except Exception as error:  # whatever goes wrong is an alarm
            messages.append(f"{check.name}: {type(error).__name__}: {error}")
    return messages


def main() -> int:
    """-> 1 if a check failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--first", type=int, default=0, help="seed of the first repetition")
    options = parser.parse_args()
    device, start, alarms = gn.device(options.device), time.perf_counter(), 0
    for seed in range(options.first, options.first + options.repetitions):
        for message in failed(device, seed):
            alarms += 1
            print(message, flush=True)
    checks, each = len(list(all_checks())), (time.perf_counter() - start) / max(options.repetitions, 1)
    detail = getattr(device, "detail", device.name)
    print(
        f"{options.repetitions} x {checks} checks of {len(LAYERS)} layers, {len(LOSSES)} losses and {len(OPTIMIZERS)} "
        f"optimizers on {detail}: {alarms} failed; {each:.1f} s each time"
    )
    return int(alarms > 0)


if __name__ == "__main__":
    sys.exit(main())
