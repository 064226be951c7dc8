"""Plain numbers about the database's use, for the metrics to read; counting costs next to nothing."""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


class Outcome(enum.StrEnum):
    """How a unit ended. What was retried counts once for each try."""

    COMMITTED = "committed"
    READ = "read"
    CANCELLED = "cancelled"  # by its caller; also while it waited
    UNKNOWN = "unknown"  # the connection died between COMMIT and its answer
    FAILED = "failed"
    BUSY = "busy"  # no connection in time


class Cancelled(enum.StrEnum):
    """What became of a unit that was cancelled while its thread ran."""

    STOPPED = "stopped"
    TOO_LATE = "too_late"  # it had committed
    CUT = "cut"  # the server did not answer the cancel


@dataclass(frozen=True, slots=True)
class InFlight:
    """A unit on its thread, for people who look."""

    unit: str
    seconds: float
    task: str  # who waits for it


# Called at the end of each unit with its function's name, its outcome and the seconds it took without the wait for a
# connection. It must be quick and not raise.
type UnitObserver = Callable[[str, Outcome, float], None]


@dataclass(frozen=True, slots=True)
class DatabaseStatistics:
    """One moment's gauges, and counters since the start."""

    connections_in_use: int
    connections_idle: int
    connections_limit: int
    waiting: int
    cancels: Mapping[Cancelled, int]
    cancels_sent: int
    lines_cut: int  # connections ended by us, as the server did not answer
    lines_replaced: int  # connections that the server had ended while idle
    retried: int  # units run again after a serialization failure or a deadlock
    units: Mapping[Outcome, int]
    background_failures: Mapping[str, int]  # errors that tasks for ever met, by class of SQLSTATE or name of error

    @property
    def busy(self) -> int:
        """Units refused for want of a connection."""
        return self.units[Outcome.BUSY]


@dataclass(slots=True)
class Counters:
    """What the units count up. Only the event loop touches it."""

    cancels: dict[Cancelled, int] = field(default_factory=lambda: dict.fromkeys(Cancelled, 0))
    cancels_sent: int = 0
    lines_cut: int = 0
    lines_replaced: int = 0
    retried: int = 0
    units: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
