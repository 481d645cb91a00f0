"""Device parity: record a training run on one device, replay it on another, see where and by how much they differ."""

from gpunet.parity.recording import compare, record, replay
from gpunet.parity.report import Report, Row

__all__ = ["Report", "Row", "compare", "record", "replay"]
