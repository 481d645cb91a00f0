"""The command line as a person runs it."""

from __future__ import annotations

import json
import subprocess
import sys


def gpunet(*arguments, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "from gpunet.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environment},
        timeout=120,
    )


def test_train_prints_progress_and_test_accuracy():
    done = gpunet("train", "--epochs", "2", "--device", "cpu")
    assert done.returncode == 0
    assert done.stdout.startswith("test accuracy 0.9")
    assert "epoch 2/2" in done.stderr


def test_json_is_the_last_line():
    done = gpunet("train", "--epochs", "1", "--seed", "3", "--json", "--device", "cpu")
    result = json.loads(done.stdout.splitlines()[-1])
    assert 0.5 < result["test_accuracy"] <= 1
    assert result["seed"] == 3
    assert result["epochs"] == 1
    assert result["device"] == "numpy"


def test_the_default_run_reaches_its_accuracy():
    done = gpunet("train", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["test_accuracy"] >= 0.96


def test_an_unusable_device_is_one_line_and_status_2():
    done = gpunet("train", "--device", "cuda:99")
    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("gpunet: device 'cuda:99' is not usable: ")
    assert done.stderr.rstrip().endswith("See: gpunet devices")


def test_an_unknown_device_lists_the_known_ones():
    done = gpunet("train", "--device", "gpu")
    assert done.returncode == 2
    assert done.stderr.startswith("gpunet: device 'gpu' is unknown. Use one of: auto, ")


def test_gpunet_device_overrides_auto():
    assert "cuda:99" in gpunet("train", GPUNET_DEVICE="cuda:99").stderr
    assert gpunet("train", "--epochs", "1", "--device", "cpu", GPUNET_DEVICE="cuda:99").returncode == 0


def test_devices_says_what_is_usable_and_why_not():
    done = gpunet("devices")
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines()[:-1]}
    assert "  usable: NumPy" in rows["cpu"]
    assert "usable: " in rows["cuda"]
    assert done.stdout.splitlines()[-1].startswith("CUDA support is not yet verified on hardware")
