"""How a job is enqueued apart from what it is given: when, ahead of whom, and in whose place."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

LONGEST_DELAY = 315_360_000  # seconds, ten years; beyond the year 9999 nobody could list what waits
_PRIORITIES = {"high": 1, "normal": 0, "low": -1}

type Priority = Literal["high", "normal", "low"]


@dataclass(frozen=True, slots=True)
class Options:
    """How one job is enqueued, apart from its arguments."""

    priority: Priority = "normal"
    delay: float = 0.0
    at: datetime | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if self.priority not in _PRIORITIES:
            raise ValueError(f"priority: must be one of {', '.join(_PRIORITIES)}, not {self.priority!r}")
        if not 0 <= self.delay <= LONGEST_DELAY:
            raise ValueError(f"delay: must be from 0 to {LONGEST_DELAY} seconds, not {self.delay!r}")
        if self.at is not None and self.at.tzinfo is None:
            raise ValueError(f"at: must have a time zone, {self.at.isoformat()} has none")
        if self.at is not None and not _is_in_utc(self.at):
            raise ValueError(f"at: must be in the years 1 to 9999 in UTC, not {self.at.isoformat()}")
        if self.at is not None and self.delay:
            raise ValueError("delay: must not be given together with `at`")
        if self.key is not None and (not 1 <= len(self.key) <= 200 or "\0" in self.key):
            raise ValueError("key: must be 1 to 200 characters, none of them NUL")

    @property
    def rank(self) -> int:
        return _PRIORITIES[self.priority]


def _is_in_utc(moment: datetime) -> bool:
    """Tell whether a moment has a date in UTC, as PostgreSQL returns it: not all at the ends of the calendar have."""
    try:
        moment.astimezone(UTC)
    except OverflowError:
        return False
    return True
