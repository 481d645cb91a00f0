"""Data sets that come with gpunet. ATTRIBUTION.md beside this file names their sources and licences."""

from gpunet.datasets.digits import digits

__all__ = ["digits"]
