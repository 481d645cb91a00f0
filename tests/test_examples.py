"""Each example runs to its end; what it claims it asserts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
NAMES = ["01_xor", "02_digits", "03_binary", "04_regression", "05_by_hand", "06_custom_layer", "07_parity"]


@pytest.mark.skipif(not EXAMPLES, reason="run from an installed package, without the examples")
def test_all_are_there():
    assert [path.stem for path in EXAMPLES] == NAMES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, tmp_path):
    environment = {**os.environ, "GPUNET_DEVICE": "cpu"}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(path)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert not list(tmp_path.iterdir())
