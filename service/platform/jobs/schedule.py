"""When a scheduled job is due: pure arithmetic of time, with the database's clock handed in.

A turn is a moment at which the job should run. Every replica computes the same turns, and the table lets one in.
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
SHORTEST = 1.0  # seconds between two turns
FIRST_BACK = datetime.timedelta(minutes=1)  # how far the latest turn is looked for first; then twice as far, and so on


@dataclass(frozen=True, slots=True)
class Every:
    """A turn at each multiple of so many seconds since 1970, UTC: the same moments on every replica."""

    seconds: float

    def __post_init__(self) -> None:
        if not SHORTEST <= self.seconds <= 366 * 86_400:
            raise ValueError(f"every: must be from {SHORTEST:g} second to 366 days, not {self.seconds!r}")

    def latest(self, now: datetime.datetime) -> datetime.datetime:
        """Return the last turn that is not after `now`."""
        count = (now - EPOCH) // datetime.timedelta(seconds=self.seconds)
        return EPOCH + count * datetime.timedelta(seconds=self.seconds)

    def following(self, now: datetime.datetime) -> datetime.datetime:
        """Return the first turn after `now`."""
        return self.latest(now) + datetime.timedelta(seconds=self.seconds)


@dataclass(frozen=True, slots=True)
class Cron:
    """Turns by a cron expression of five fields, or six with seconds last, on the wall clock of a time zone.

    Over daylight saving as Debian's cron has it (cronsim's words): a fixed time that the clock jumps over comes right
    after the jump, and one that the clock shows twice comes once; expressions of every hour or minute go on evenly.
    """

    expression: str
    zone: str

    def __post_init__(self) -> None:
        try:
            zone = ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"zone: must be a name such as Europe/Berlin, not {self.zone!r}") from None
        try:
            next(CronSim(self.expression, EPOCH.astimezone(zone)))
        except (CronSimError, StopIteration):
            raise ValueError(f"cron: must be like '30 3 * * *', not {self.expression!r}") from None

    def latest(self, now: datetime.datetime) -> datetime.datetime:
        """Return the last turn that is not after `now`.

        It is looked for from ever earlier moments on: cronsim's own way back leaves out the hour that a clock shows
        twice, or goes through it in another order.
        """
        back = FIRST_BACK
        while not (turns := [*takewhile(now.__ge__, self._since(now - back))]):
            back *= 2
        return turns[-1]

    def following(self, now: datetime.datetime) -> datetime.datetime:
        """Return the first turn after `now`."""
        return next(turn for turn in self._since(now) if turn > now)

    def _since(self, moment: datetime.datetime) -> Iterator[datetime.datetime]:
        """Yield turns from a moment on. Within an hour that a clock shows twice the first ones are before it."""
        for turn in CronSim(self.expression, moment.astimezone(ZoneInfo(self.zone))):
            yield turn.astimezone(datetime.UTC)


type Schedule = Every | Cron
