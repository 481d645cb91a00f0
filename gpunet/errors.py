"""Every error gpunet raises on purpose. A message states the rule, the value that broke it and the remedy."""

from __future__ import annotations


class GpunetError(Exception):
    """Base of all errors below."""


class FormulaError(GpunetError):
    """Something outside the formula language; names the operation and the formula."""


class DeviceError(GpunetError):
    """A device that is unknown or not usable; says why and what to do."""


class DeviceMemoryError(DeviceError, MemoryError):
    """A device that has too little memory for the work."""


class ShapeError(GpunetError, ValueError):
    """An array whose shape does not fit."""


class ArrayError(GpunetError, TypeError):
    """An array of another backend, device or data type than the model's."""


class ArgumentError(GpunetError, ValueError):
    """An argument outside its range, or arguments that contradict each other."""


class NotBuiltError(GpunetError, RuntimeError):
    """A model that has to be built first."""


class GradientError(GpunetError, AssertionError):
    """A backward pass that disagrees with finite differences."""


class FileError(GpunetError, ValueError):
    """A file that cannot be read, or does not hold what it should."""


class NotFiniteError(GpunetError, ArithmeticError):
    """A training run whose numbers are no longer finite; says where that began."""


class RecordingError(GpunetError, RuntimeError):
    """Work that cannot be recorded to be run again, since it depends on numbers of the host."""
