"""A test kit for layers, losses and optimizers: from one spec, tests of the formula and its derivative on every device.

Names are loaded on first use: pytest loads this package wherever gpunet is installed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpunet.testing.asserts import assert_gradients, assert_parity, assert_replay
    from gpunet.testing.specs import LayerSpec, LossSpec, OptimizerSpec
    from gpunet.testing.suites import layer_suite, loss_suite, optimizer_suite

_HOMES = {
    "LayerSpec": "specs",
    "LossSpec": "specs",
    "OptimizerSpec": "specs",
    "assert_gradients": "asserts",
    "assert_parity": "asserts",
    "assert_replay": "asserts",
    "layer_suite": "suites",
    "loss_suite": "suites",
    "optimizer_suite": "suites",
}
"""The modules where the names live."""

__all__ = [
    "LayerSpec",
    "LossSpec",
    "OptimizerSpec",
    "assert_gradients",
    "assert_parity",
    "assert_replay",
    "layer_suite",
    "loss_suite",
    "optimizer_suite",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'gpunet.testing' has no attribute '{name}'. It has: {', '.join(__all__)}")
    value = getattr(import_module(f"gpunet.testing.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return list(__all__)
