"""The worked example of CONTRIBUTING.md does what the page says."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from kit import EPS, built, draw, error, run

import gpunet as gn

PAGE = Path(__file__).parents[2] / "CONTRIBUTING.md"


@pytest.fixture(scope="module")
def spec():
    names = {"__name__": "example"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
        exec(textwrap.dedent(block.replace("\n   ", "\n").removeprefix("   ")), names)
    return names["spec"]


def test_it_runs_on_every_backend(spec, backend):
    model, x = built(spec, backend, "float32"), draw(0, *spec.shape).astype(np.float32)
    y = run(model, x, np.zeros(spec.shape))["y"]
    assert error(y, spec.reference(x.astype(np.float64), {})) <= 4 * EPS["float32"]
    assert gn.gradcheck(spec.make(), spec.shape, device=backend)["x"] < 1e-6
