"""From one spec per layer: every backend against the float64 formula, finite differences and each other."""

from __future__ import annotations

from kit import LAYERS

from gpunet.testing import layers
from gpunet.testing.suites import suite

TestLayers = suite(layers.CHECKS, LAYERS)
