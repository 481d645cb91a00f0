"""What a user gets: a light import, both packages, documented names, the README's example."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from importlib.metadata import entry_points, files
from pathlib import Path

import pytest

import gpunet as gn

ROOT = Path(__file__).parents[1]


def python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_import_loads_no_array_library():
    heavy = ["numpy", "cupy", "numba", "torch", "matplotlib", "rich", "typer", "array_api_compat", "gpunet_backends"]
    done = python(f"import sys, gpunet; print([m for m in {heavy} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr
    uses = "gpunet.Trainer, gpunet.gradcheck, gpunet.layers, gpunet.losses, gpunet.optim, gpunet.datasets"
    done = python(f"import sys, gpunet; {uses}; print([m for m in {heavy} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stderr


def test_the_wheel_is_what_is_tested():
    """Set by the session that installs it."""
    import os

    if os.environ.get("GPUNET_EXPECT_WHEEL") != "1":
        pytest.skip("only where the wheel is installed: nox -s tests_wheel")
    import gpunet_backends

    for package in (gn, gpunet_backends):
        assert "site-packages" in str(package.__path__)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'gpunet' has no attribute 'layer_suite'"):
        gn.layer_suite  # noqa: B018
    assert "layers" in dir(gn)


def test_both_packages_are_installed_with_their_types():
    names = {str(f) for f in files("gpunet") or ()}
    if any("__editable__" in n or n.endswith(".pth") for n in names):
        pytest.skip("an editable install; tests_wheel checks the wheel")
    assert {"gpunet/py.typed", "gpunet_backends/py.typed", "gpunet_backends/array_api.py"} <= names
    assert {"gpunet/datasets/digits.npz", "gpunet/datasets/ATTRIBUTION.md"} <= names


def test_every_device_kind_has_an_entry_point():
    names = {e.name for e in entry_points(group="gpunet.backends")}
    assert names == {"cpu", "cuda", "torch", "array_api_strict", "reference"}
    assert {row.name for row in gn.devices()} == names


MODULES = ["", "layers", "losses", "optim", "train", "initializers", "formula", "data", "datasets", "metrics"]


@pytest.mark.parametrize("module", [*MODULES, "parity", "testing"])
def test_public_names_are_documented(module):
    """Every public name stands in docs/api.md, and has a docstring."""
    if not (ROOT / "docs").is_dir():
        pytest.skip("run from an installed package, without the docs")
    text = (ROOT / "docs" / "api.md").read_text()
    namespace = getattr(gn, module) if module else gn
    own = namespace.__name__
    names = getattr(namespace, "__all__", None) or [
        n for n, v in vars(namespace).items() if getattr(v, "__module__", None) == own and not n.startswith("_")
    ]
    assert names
    for name in names:
        assert re.search(rf"`{name}\b", text), f"{own}.{name} is missing in docs/api.md"
        assert name == "Formula" or getattr(namespace, name).__doc__, f"{own}.{name} has no docstring"


def test_the_readme_example_runs():
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("run from an installed package, without the README")
    example = re.search(r"```python\n(.*?)```", readme.read_text(), re.S)
    assert example
    code = example.group(1)
    assert len(code.splitlines()) <= 15
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        exec(compile(code, "README.md", "exec"), {})
    assert float(output.getvalue().split()[-1]) > 0.95


def test_the_examples_of_the_docs_run():
    page = ROOT / "docs" / "api.md"
    if not page.exists():
        pytest.skip("run from an installed package, without the docs")
    examples = re.findall(r"```python\n(.*?)```", page.read_text(), re.S)
    assert len(examples) == 2
    for example in examples:
        assert "gn.gradcheck(" in example
        exec(compile(example, "docs/api.md", "exec"), {"__name__": "__main__"})


def test_the_readme_has_the_commands_that_ci_runs():
    readme = ROOT / "README.md"
    if not readme.exists():
        pytest.skip("run from an installed package, without the README")
    text, ci = readme.read_text(), (ROOT / ".ci" / "run").read_text()
    for command in ('pip install -e ".[jit]" && gpunet train', 'pip install -e ".[jit,test]" && pytest'):
        assert command in text
        assert command in ci
