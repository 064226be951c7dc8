"""What the process tells of itself: log lines, metrics, traces."""

from service.platform.telemetry.metrics import Metrics

__all__ = ["Metrics"]
