"""Make the golden recordings on a device: python tests/golden/record.py [--device cuda]

Three runs (gpunet.parity.cases), each in float32 and in float64. Names of the files begin with the device.
"""

from __future__ import annotations

import argparse
import datetime
import re
from pathlib import Path

import gpunet as gn
from gpunet import parity
from gpunet.parity.cases import CASES, SEED

FOLDER = Path(__file__).parent
DTYPES = ("float32", "float64")


def record(case: str, dtype: str, device: str, path: Path) -> None:
    """One run on a device."""
    model, loss, optimizer, batches = CASES[case]()
    model.build(batches[0][0].shape[1:], device="cpu", dtype=dtype, seed=SEED)
    parity.record(model, loss, optimizer, batches, path, device=device, seed=SEED)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the golden recordings on a device.")
    parser.add_argument("--device", default="reference", help='such as "cuda"; default: the reference')
    parser.add_argument("--to", type=Path, default=FOLDER, help="folder; default: beside this script")
    options = parser.parse_args()
    name = options.device
    if name != "reference":
        gpu = str(getattr(gn.device(name), "detail", name)).partition(",")[0].lower()
        name = re.sub(r"[^a-z0-9]+", "-", gpu).strip("-") + f"-{datetime.date.today()}"
    for case in CASES:
        for dtype in DTYPES:
            path = options.to / f"{name}-{case}-{dtype}.safetensors"
            record(case, dtype, options.device, path)
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
