"""The page of the docs, followed in an empty folder."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "parity.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="run from an installed package, without the docs")


def files():
    """Those that the page has one write, by name."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE.read_text(), re.S)
    return dict(blocks)


def test_from_an_empty_folder_to_a_parity_test(tmp_path):
    written = files()
    assert list(written) == ["swish.py", "test_swish.py", "mixing.py", "test_mixing.py"]
    for name, text in written.items():
        (tmp_path / name).write_text(text)

    def run(*words):
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout + done.stderr

    def pytest_run(*words):
        return run("-m", "pytest", "-q", "-p", "no:cacheprovider", *words)

    status, output = pytest_run("--gpunet-device", "cpu")
    assert status == 0, output
    assert int(re.search(r"(\d+) passed", output).group(1)) >= 36
    commands = re.findall(r"^gpunet (parity (?:record|replay) .*?)(?: +#.*)?$", PAGE.read_text(), re.M)
    assert len(commands) == 2
    for command in commands:
        status, output = run("-c", "from gpunet.cli import main; main()", *command.split())
        assert status == 0, output
    assert "agree" in output
    status, output = pytest_run("--gpunet-require", "cuda:99", "-k", "training")
    assert status == 1
    assert "--gpunet-require cuda:99, but" in output


def test_the_workflow_uses_the_same_commands():
    workflow = (ROOT / "examples" / "parity.yml").read_text()
    assert "gpunet parity record swish:case --device cuda --out swish.safetensors" in workflow
    assert "gpunet parity replay swish.safetensors --device cpu --import swish" in workflow
