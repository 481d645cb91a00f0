"""Data sets that come with gpunet. ATTRIBUTION.md beside this file names their sources and licences."""

from gpunet.datasets.breast_cancer import breast_cancer
from gpunet.datasets.diabetes import diabetes
from gpunet.datasets.digits import digits

__all__ = ["breast_cancer", "diabetes", "digits"]
