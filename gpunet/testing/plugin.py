"""What pytest loads wherever gpunet is installed: the fixture ``device``, and the options of the suites.

Nothing is opened or imported until a test asks for a device.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from importlib.metadata import entry_points
from typing import Any, NoReturn

import pytest

HIDDEN = ("array_api_strict", "torch")
"""Array libraries that are no devices of their own; tested when asked for."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the suites."""
    group = parser.getgroup("gpunet", "gpunet")
    group.addoption(
        "--gpunet-device",
        action="append",
        default=[],
        metavar="NAME",
        help="test on this device, such as cpu or cuda:1, instead of all; may be repeated",
    )
    group.addoption(
        "--gpunet-require",
        action="append",
        default=[],
        metavar="NAME",
        help="fail where this device is not usable, instead of skipping; may be repeated. GPUNET_REQUIRE_NAME=1 does "
        "the same",
    )
    group.addoption("--gpunet-seed", type=int, default=0, metavar="N", help="draw other inputs (default: 0)")


def pytest_configure(config: pytest.Config) -> None:
    """Make the fixture ``device``. A conftest.py may override it, as any other fixture."""
    names = chosen(config.option.gpunet_device, config.option.gpunet_require)
    config.pluginmanager.register(_fixtures(names, config.option.gpunet_require), "gpunet devices")


def chosen(names: Sequence[str], required: Sequence[str]) -> list[str]:
    """The devices under test: those named, or every kind that is known; and those required."""
    if not names:
        names = sorted(kinds() - {*HIDDEN})
    return list(dict.fromkeys((*names, *required)))


def kinds() -> set[str]:
    """The device kinds that gpunet knows here."""
    return {entry.name for entry in entry_points(group="gpunet.backends")}


def _fixtures(names: Sequence[str], required: Collection[str]) -> Any:
    def device(self: Any, request: pytest.FixtureRequest) -> Any:
        """Every device in turn, as a gpunet Backend; see --gpunet-device and --gpunet-require."""
        from gpunet.backend import device as open_device
        from gpunet.errors import DeviceError

        try:
            return open_device(request.param)
        except DeviceError as error:
            if request.param.partition(":")[0] not in kinds():
                pytest.fail(str(error), pytrace=False)
            unusable(request.param, str(error), required)

    return type("Devices", (), {"device": pytest.fixture(params=names)(device)})()


@pytest.fixture(scope="session")
def gpunet_seed(pytestconfig: pytest.Config) -> int:
    """The seed of drawn inputs: --gpunet-seed."""
    seed: int = pytestconfig.option.gpunet_seed
    return seed


def unusable(name: str, reason: str, required: Collection[str] = ()) -> NoReturn:
    """Skip a test and say why; fail if the device is required, by name or by GPUNET_REQUIRE_<NAME>=1."""
    variable = f"GPUNET_REQUIRE_{re.sub(r'[^A-Z0-9]', '_', name.upper())}"
    if name in required:
        pytest.fail(f"--gpunet-require {name}, but {reason}", pytrace=False)
    if os.environ.get(variable) == "1":
        pytest.fail(f"{variable}=1, but {reason}", pytrace=False)
    pytest.skip(f"not run on {name}: {reason}")
