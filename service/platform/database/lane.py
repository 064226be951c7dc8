"""What runs a unit, whatever its kind: its turn, its connection, its tries, and how it ended, counted and told."""

import copy
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Self

import psycopg
import structlog
import trio
from sqlalchemy.exc import DBAPIError

from service.platform.database.address import STATEMENT_MARGIN
from service.platform.database.background import Background, in_background
from service.platform.database.complaints import Complaints
from service.platform.database.notify import Notifier
from service.platform.database.pool import Pool
from service.platform.database.pooled import PooledConnection
from service.platform.database.slots import Slots
from service.platform.database.sqlstate import (
    COLLISIONS,
    READ_ONLY,
    UNSUPPORTED,
    is_queue_full,
    outlives,
    sqlstate_of,
    translate,
)
from service.platform.database.statement import StatementUnit
from service.platform.database.statistics import Cancelled, Counters, InFlight, Outcome, UnitObserver
from service.platform.database.unit import Unit
from service.platform.database.work import DeadAtBegin, StalePlan, StandbyAtBegin
from service.platform.errors import Busy, DatabaseAway, DatabaseUnable, OutcomeUnknown
from service.platform.settings import PlatformSettings

MOST_TRIES = 10
# A task's unit that has no deadline may take as long as so many statements may at the server. A line behind a pooler or
# a proxy may be silent for hours, and open, after the server is gone: nothing else would end the wait for its answer.
STATEMENTS = 2
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.2  # seconds between tries; each is drawn from half to one and a half

# A unit on a connection, and what runs it.
type Started = tuple[Unit | StatementUnit, Callable[[], Awaitable[Any]]]
type Begin = Callable[[PooledConnection], Started]

log = structlog.get_logger(__name__)


class Lane:
    """Slots, and the units that have one. Other lanes share all but the slots: see `Database.beside`."""

    def __init__(
        self, settings: PlatformSettings, pool: Pool, background: Background, *, on_unit: UnitObserver | None
    ) -> None:
        self.pool = pool
        self.slots = Slots(settings.database_connections, settings.database_queue_wait)
        self.counters = Counters()
        self.notifier = Notifier()
        self.on_unit = on_unit
        self._background = background
        self._slow = settings.database_slow_unit
        self._longest = STATEMENTS * (settings.request_deadline + STATEMENT_MARGIN)
        self._complaints = Complaints()
        self._running: dict[Unit | StatementUnit, tuple[str, float, str]] = {}

    def beside(self, slots: Slots) -> Self:
        lane = copy.copy(self)
        lane.slots = slots
        return lane

    def in_flight(self) -> list[InFlight]:
        """Return the units that run now, the longest first."""
        now = time.perf_counter()
        units = [InFlight(name, now - since, task) for name, since, task in self._running.values()]
        return sorted(units, key=lambda unit: -unit.seconds)

    async def run(self, name: str, begin: Begin, ended: Outcome) -> Any:
        for attempt in range(MOST_TRIES):
            try:
                with self._background.watching():
                    return await self._unit(name, begin, ended)
            except (DBAPIError, psycopg.Error) as error:
                if sqlstate_of(error) not in COLLISIONS:
                    raise
            self.counters.retried += 1
            await trio.sleep(min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.5))  # noqa: S311  jitter
        raise Busy(f"the unit collided with others {MOST_TRIES} times")

    async def _unit(self, name: str, begin: Begin, ended: Outcome) -> Any:
        outcome, started = Outcome.FAILED, None
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self.slots.acquire()
            started = time.perf_counter()
            run = self._in_time if in_background() else self._on_a_connection
            value = await run(name, begin)
        except trio.Cancelled:
            outcome = Outcome.CANCELLED
            raise
        except OutcomeUnknown:
            outcome = Outcome.UNKNOWN
            raise
        except Busy:
            outcome = Outcome.BUSY
            raise
        else:
            outcome = ended
            return value
        finally:
            seconds = 0.0
            if started is not None:
                seconds = time.perf_counter() - started
                self.slots.release(seconds)
            self._account(name, outcome, seconds)

    async def _in_time(self, name: str, begin: Begin) -> Any:
        """Run the unit of a task that runs for ever; without a deadline it ends when its line must be silent."""
        if trio.current_effective_deadline() < math.inf:
            return await self._on_a_connection(name, begin)
        with trio.move_on_after(self._longest):
            return await self._on_a_connection(name, begin)
        raise DatabaseAway(f"PostgreSQL did not answer within {self._longest:g} s; nothing is committed")

    async def _on_a_connection(self, name: str, begin: Begin) -> Any:
        pooled = await self.pool.take()
        try:
            return await self._hop(name, pooled, *begin(pooled))
        except (DeadAtBegin, StalePlan):
            self.counters.lines_replaced += 1
        except StandbyAtBegin as error:
            if not self.pool.replaces_standby(pooled):
                raise DatabaseUnable(str(error), sqlstate=READ_ONLY) from error
        pooled = await self.pool.take_new()
        try:
            return await self._hop(name, pooled, *begin(pooled))
        except DeadAtBegin as error:
            raise DatabaseAway("PostgreSQL ends each connection at once") from error.__cause__
        except StalePlan as error:
            altered = "a table was altered while the unit ran; nothing is committed"
            raise DatabaseUnable(altered, sqlstate=UNSUPPORTED) from error
        except StandbyAtBegin as error:
            raise DatabaseUnable(str(error), sqlstate=READ_ONLY) from error

    async def _hop(
        self, name: str, pooled: PooledConnection, unit: Unit | StatementUnit, run: Callable[[], Awaitable[Any]]
    ) -> Any:
        """Run the unit; once cancelled, see to it that it ends, and tell how it ended."""
        self._running[unit] = name, time.perf_counter(), trio.lowlevel.current_task().name
        try:
            value = await run()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):  # bounded: see Unit.stop
                await unit.stop()
            how = Cancelled.CUT if unit.was_cut else Cancelled.TOO_LATE if unit.committed else Cancelled.STOPPED
            self.counters.cancels[how] += 1
            if unit.committed:
                self.notifier.add(unit.notifications)
                return unit.value  # noqa: ASYNC104  too late to cancel; the next checkpoint delivers it
            if unit.outcome_unknown:
                why = "the connection was cut while committing: it may be committed or not"
                raise OutcomeUnknown(why) from None  # noqa: ASYNC104  worse than cancelled, and the caller must know
            raise
        except StalePlan:
            unit.tainted = True
            raise
        except (DBAPIError, psycopg.Error) as error:
            state = sqlstate_of(error)
            unit.tainted |= outlives(state)
            if is_queue_full(error):
                self.notifier.note_full()
            ours = translate(error, standby=pooled.standby)
            if ours is None:
                raise
            self._complaints.tell(name, state, error)
            raise ours from error
        else:
            self.notifier.add(unit.notifications)
            return value
        finally:
            del self._running[unit]
            self.counters.cancels_sent += unit.cancels_sent
            self.counters.lines_cut += unit.was_cut
            if unit.was_silent:
                self.pool.note_silence(pooled)
            if unit.tainted or unit.was_cut:
                pooled.close()
            self.pool.give(pooled)

    def _account(self, name: str, outcome: Outcome, seconds: float) -> None:
        self.counters.units[outcome] += 1
        if seconds < self._slow and self.on_unit is None:
            return
        if seconds >= self._slow:
            log.warning("slow unit", unit=name, seconds=round(seconds, 3), outcome=outcome)
        if self.on_unit is not None:
            self.on_unit(name, outcome, seconds)
