"""Stand-ins for arrays of other libraries."""

import numpy as np

CPU, CUDA, CUDA_HOST, METAL, CUDA_MANAGED = 1, 2, 3, 8, 13
"""DLPack's device types."""


class Foreign:
    """Offers DLPack, and nothing else. On a GPU for a fake one only: the memory is the host's."""

    def __init__(self, array, device=(CPU, 0)):
        self.array, self.device = np.asarray(array), device

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None, **options):
        return self.array.__dlpack__(**options)


class OfGpu:
    """A GPU's array, or its stand-in's, that offers as little.

    streams  those of who asked for it
    """

    def __init__(self, array):
        self.array, self.streams = array, []

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()

    def __dlpack__(self, *, stream=None, **options):
        self.streams.append(stream)
        return self.array.__dlpack__(stream=stream, **options)


class Old(Foreign):
    """As before DLPack 1.0: NumPy takes the array for read-only."""

    def __dlpack__(self, stream=None):
        return self.array.__dlpack__()


class Movable(Foreign):
    """As PyTorch's."""

    def cpu(self):
        return Foreign(self.array)


class Gettable(Foreign):
    """As CuPy's."""

    def get(self):
        return self.array


class Refusing(Foreign):
    """Its library does not pass it on."""

    def __init__(self, error, device=(CPU, 0)):
        super().__init__(np.ones(2), device)
        self.error = error

    def __dlpack__(self, **options):
        raise self.error


class Nowhere(Foreign):
    """On no device that DLPack knows."""

    def __dlpack_device__(self):
        raise ValueError("Unknown device type meta for Dlpack")
