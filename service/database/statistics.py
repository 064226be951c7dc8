"""Plain numbers about the database's use, for the metrics to read; counting costs next to nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

# Called at the end of each unit with its function's name, its outcome and its seconds; must be quick and not raise.
type UnitObserver = Callable[[str, str, float], None]


@dataclass(frozen=True, slots=True)
class Statistics:
    """One moment's gauges, and counters since the start."""

    connections_in_use: int
    connections_idle: int
    connections_limit: int
    waiting: int
    busy: int  # units refused for want of a connection
    cancels_sent: int
    lines_cut: int  # connections ended by us, as the server did not answer
    lines_replaced: int  # connections that the server had ended while idle
    retried: int  # units run again after a serialization failure or a deadlock
    units: Mapping[str, int]  # by outcome: committed, read, cancelled, unknown, failed


@dataclass(slots=True)
class Counters:
    """What the units count up. Only the event loop touches it."""

    cancels_sent: int = 0
    lines_cut: int = 0
    lines_replaced: int = 0
    retried: int = 0
    units: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("committed", "read", "cancelled", "unknown", "failed"), 0)
    )
