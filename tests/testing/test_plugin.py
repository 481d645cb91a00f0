"""The plugin as a user's project sees it: in a process of its own, outside of the repository."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gpunet as gn
from gpunet.errors import DeviceError
from gpunet.testing.plugin import unusable

LAYERS = """
import numpy as np
from gpunet.formula import sigmoid
from gpunet.pointwise import Pointwise
from gpunet.testing import LayerSpec, layer_suite


class Swish(Pointwise):
    def formula(self, xp, x):
        return x * sigmoid(x)

    def derivative(self, xp, dy, x, y):
        s = sigmoid(x)
        return dy * (s + x * s * (1 - s))


class Half(Swish):
    def derivative(self, xp, dy, x, y):
        return dy * sigmoid(x)


SPEC = LayerSpec(shape=(5, 4), reference=lambda x, p: x / (1 + np.exp(-x)))
"""
ONE = LAYERS + "TestSwish = layer_suite(Swish, SPEC)\n"


@pytest.fixture(scope="module")
def has_cuda():
    """Asked before ``pytester`` comes, which forgets what was imported since: a library imported twice may crash."""
    try:
        return bool(gn.device("cuda"))
    except DeviceError:
        return False


@pytest.fixture
def cuda_is_missing(has_cuda):
    if has_cuda:
        pytest.skip("there is a GPU")


@pytest.fixture
def tested(has_cuda, pytester, monkeypatch):
    """Runs pytest in a fresh project with one test file."""
    for name in ("PYTEST_ADDOPTS", "GPUNET_REQUIRE_CUDA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GPUNET_JIT", "0")  # nothing is compiled

    def run(text, *options):
        pytester.makepyfile(test_layers=text)
        return pytester.runpytest_subprocess("-W", "error", "-ra", "-p", "no:cacheprovider", "-p", "no:xdist", *options)

    return run


def test_a_suite_is_collected_and_passes(tested):
    result = tested(ONE, "-v", "--gpunet-device", "cpu")
    result.assert_outcomes(passed=13)
    result.stdout.fnmatch_lines(["test_layers.py::TestSwish::test_forward[[]cpu-float32[]] PASSED*"])


def test_a_device_that_is_not_usable_is_skipped_with_its_reason(tested, cuda_is_missing):
    result = tested(ONE)
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] >= 12
    assert outcomes["skipped"] >= 12
    result.stdout.fnmatch_lines(["SKIPPED [[]13[]]*: not run on cuda: device 'cuda' is not usable: *"])


def test_a_defect_fails_and_the_message_names_layer_and_tensor(tested):
    text = LAYERS + "TestHalf = layer_suite(Half, SPEC)\n"
    result = tested(text, "--gpunet-device", "reference", "--gpunet-seed", "5")
    result.assert_outcomes(passed=12, failed=1)
    line = "Half on reference in float64, seed 5: the gradient of the input is off by * of its size from finite *"
    result.stdout.fnmatch_lines([f"*AssertionError: {line}", "FAILED test_layers.py::TestHalf::test_backward*"])


def test_a_device_that_is_required_must_be_there_and_an_unknown_one_is_an_error(tested, cuda_is_missing):
    options = [f"--gpunet-{word}" for word in ("device=reference", "device=tpu", "require=cuda")]
    result = tested(ONE, *options, "-k", "few")
    result.assert_outcomes(passed=2, errors=4)
    result.stdout.fnmatch_lines_random(
        [
            "*--gpunet-require cuda, but device 'cuda' is not usable: *",
            "*device 'tpu' is unknown. Use one of: auto, *cpu, cuda*",
        ]
    )


def test_a_variable_requires_a_device_too(monkeypatch):
    with pytest.raises(pytest.skip.Exception, match="not run on cuda:1: why"):
        unusable("cuda:1", "why")
    with pytest.raises(pytest.fail.Exception, match="--gpunet-require cuda:1, but why"):
        unusable("cuda:1", "why", ["cuda:1"])
    monkeypatch.setenv("GPUNET_REQUIRE_CUDA_1", "1")
    with pytest.raises(pytest.fail.Exception, match="GPUNET_REQUIRE_CUDA_1=1, but why"):
        unusable("cuda:1", "why")


def test_a_fixture_of_the_projects_own_replaces_the_devices(tested, pytester):
    pytester.makeconftest(
        "import pytest, gpunet\n@pytest.fixture\ndef device():\n    return gpunet.device('reference')\n"
    )
    tested(ONE).assert_outcomes(passed=13)


def test_options_are_explained(tested):
    text = tested("", "--help").stdout.str()
    for words in ("--gpunet-device=NAME", "--gpunet-require=NAME", "--gpunet-seed=N", "GPUNET_REQUIRE_NAME=1"):
        assert words in text


@pytest.mark.parametrize("module", ["gpunet.testing", "gpunet.testing.plugin"])
def test_loading_it_costs_little(module):
    heavy = ["numpy", "numba", "cupy", "torch", "array_api_compat", "gpunet_backends", "gpunet.layers", "gpunet.parity"]
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_test_run_without_suites_loads_no_array_library(tested):
    result = tested("import sys\n\ndef test_it():\n    assert not {'numpy', 'gpunet.layers'} & {*sys.modules}\n")
    result.assert_outcomes(passed=1)
