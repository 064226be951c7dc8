"""The door: `run` and `read` for units of work, `listen` for notifications, and what is known about the database."""

import copy
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Concatenate, Self, cast

import psycopg
import structlog
import trio
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from service.platform.database.address import STATEMENT_MARGIN, Address, ceilings
from service.platform.database.background import Background, in_background
from service.platform.database.complaints import Complaints
from service.platform.database.listen import Listener, Wakeups
from service.platform.database.notify import Notifier
from service.platform.database.pool import Pool
from service.platform.database.pooled import PooledConnection, create_engine_over
from service.platform.database.schema import find_migrations, read_code_schema
from service.platform.database.slots import Slots
from service.platform.database.sqlstate import (
    COLLISIONS,
    READ_ONLY,
    STANDBY,
    UNSUPPORTED,
    outlives,
    sqlstate_of,
    translate,
)
from service.platform.database.statistics import (
    Cancelled,
    Counters,
    DatabaseStatistics,
    InFlight,
    Outcome,
    UnitObserver,
)
from service.platform.database.unit import Unit, keep_connection, refuse_commit, refuse_statement
from service.platform.database.watch import Condition, Watch
from service.platform.database.work import DeadAtBegin, StalePlan, StandbyAtBegin, perform
from service.platform.errors import Busy, DatabaseAway, DatabaseUnable, OutcomeUnknown
from service.platform.settings import PlatformSettings

MOST_TRIES = 10
# A task's unit that has no deadline may take as long as so many statements may at the server. A line behind a pooler or
# a proxy may be silent for hours, and open, after the server is gone: nothing else would end the wait for its answer.
STATEMENTS = 2
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 0.2  # seconds between tries; each is drawn from half to one and a half

log = structlog.get_logger(__name__)


class Database:
    """What main opens, once, and features use; see docs/unit-of-work.md."""

    def __init__(
        self,
        settings: PlatformSettings,
        engine: Engine,
        pool: Pool,
        watch: Watch,
        *,
        background: Background,
        on_unit: UnitObserver | None,
    ) -> None:
        self.on_unit = on_unit
        self._engine = engine
        self._pool = pool
        self._watch = watch
        self._slots = Slots(settings.database_connections, settings.database_queue_wait)
        self._slow = settings.database_slow_unit
        self._longest = STATEMENTS * (settings.request_deadline + STATEMENT_MARGIN)
        self._listener = Listener(Address.direct(settings), pool.pids)
        self._counters = Counters()
        self._background = background
        self._complaints = Complaints()
        self._running: dict[Unit, tuple[Callable[..., Any], float, str]] = {}
        self._notifier = Notifier(self.run)

    async def run[**P, T](
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit of work in one transaction. It returns: committed. It is cancelled, or raises: not committed.

        The one exception to that is OutcomeUnknown. Raises what else is Unavailable (errors.py) before or without
        committing, and what the function raises. A unit that collides with another is run again, so it does SQL and
        nothing else.
        """
        return await self._retried(function, args, kwargs, transactional=True)

    async def read[**P, T](
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function that only selects; each statement sees what is committed by then. Raises as `run` does."""
        return await self._retried(function, args, kwargs, transactional=False)

    @asynccontextmanager
    async def listen(self, channel: str, *, own: bool = True) -> AsyncIterator[Wakeups]:
        """Yield what comes in on a channel; see Wakeups. All who listen share one connection outside the pool.

        Without `own`, what this process's units have sent is left out, for one who has their results anyway. Behind a
        pooler it is not known whose a notification is, and all come.
        """
        wakeups = Wakeups(channel, own=own)
        self._listener.add(wakeups)
        try:
            yield wakeups
        finally:
            self._listener.remove(wakeups)

    def beside(self, connections: int, *, queue_wait: float) -> Self:
        """Return the same database by up to so many connections more, whose units take none from those of requests.

        A unit waits up to `queue_wait` seconds for one of them.
        """
        lane = copy.copy(self)
        lane._slots = Slots(connections, queue_wait)
        return lane

    async def keep_running[*Ts](self, function: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Run what lasts as long as its nursery, whatever the database does; see background.py.

        An error of the database, of any kind, ends this run of the function: it is logged once, counted, shown by
        `/healthz`, and the function is run again after a pause of a second at most. So does a PeerAway. What is neither
        is a bug, and leaves here: it ends the process.
        """
        await self._background.keep_running(function, *args)

    @property
    def failing_tasks(self) -> Mapping[str, str]:
        """Return the background tasks that are kept from their work, by the database or a peer, with the reasons."""
        return self._background.failing

    @property
    def condition(self) -> Condition:
        """Return what the last look found; from memory."""
        return self._watch.condition

    async def look(self) -> Condition:
        """Look at the database now, for at most a second."""
        return await self._watch.look()

    async def wait_served(self) -> None:
        """Return once a schema was seen that this code serves."""
        await self._watch.wait_served()

    def statistics(self) -> DatabaseStatistics:
        counters, slots = self._counters, self._slots
        return DatabaseStatistics(
            connections_in_use=slots.used,
            connections_idle=self._pool.idle,
            connections_limit=slots.size,
            waiting=slots.waiting,
            cancels=dict(counters.cancels),
            cancels_sent=counters.cancels_sent,
            lines_cut=counters.lines_cut,
            lines_replaced=counters.lines_replaced + self._pool.replaced,
            retried=counters.retried,
            units=dict(counters.units),
            background_failures=dict(self._background.failures),
        )

    def in_flight(self) -> list[InFlight]:
        """Return the units that are on a thread now, the longest first."""
        now = time.perf_counter()
        units = [InFlight(_name(function), now - since, task) for function, since, task in self._running.values()]
        return sorted(units, key=lambda unit: -unit.seconds)

    async def _retried[T](self, function: Callable[..., T], args: Any, kwargs: Any, *, transactional: bool) -> T:
        for attempt in range(MOST_TRIES):
            try:
                with self._background.watching():
                    return await self._unit(function, args, kwargs, transactional)
            except (DBAPIError, psycopg.Error) as error:
                if sqlstate_of(error) not in COLLISIONS:
                    raise
            self._counters.retried += 1
            await trio.sleep(min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE) * random.uniform(0.5, 1.5))  # noqa: S311  jitter
        raise Busy(f"the unit collided with others {MOST_TRIES} times")

    async def _unit[T](self, function: Callable[..., T], args: Any, kwargs: Any, transactional: bool) -> T:
        outcome, started = Outcome.FAILED, None
        try:
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._slots.acquire()
            started = time.perf_counter()
            run = self._in_time if in_background() else self._on_a_connection
            value = await run(function, args, kwargs, transactional)
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
            outcome = Outcome.COMMITTED if transactional else Outcome.READ
            return value
        finally:
            seconds = 0.0
            if started is not None:
                seconds = time.perf_counter() - started
                self._slots.release(seconds)
            self._account(function, outcome, seconds)

    async def _in_time[T](self, function: Callable[..., T], args: Any, kwargs: Any, transactional: bool) -> T:
        """Run the unit of a task that runs for ever; without a deadline it ends when its line must be silent."""
        if trio.current_effective_deadline() < math.inf:
            return await self._on_a_connection(function, args, kwargs, transactional)
        with trio.move_on_after(self._longest):
            return await self._on_a_connection(function, args, kwargs, transactional)
        raise DatabaseAway(f"PostgreSQL did not answer within {self._longest:g} s; nothing is committed")

    async def _on_a_connection[T](self, function: Callable[..., T], args: Any, kwargs: Any, transactional: bool) -> T:
        pooled = await self._pool.take()
        try:
            return await self._hop(Unit(pooled, transactional=transactional), pooled, function, args, kwargs)
        except (DeadAtBegin, StalePlan):
            self._counters.lines_replaced += 1
        except StandbyAtBegin as error:
            if not self._pool.replaces_standby(pooled):
                raise standby_takes_no_writes() from error
        pooled = await self._pool.take_new()
        try:
            return await self._hop(Unit(pooled, transactional=transactional), pooled, function, args, kwargs)
        except DeadAtBegin as error:
            raise DatabaseAway("PostgreSQL ends each connection at once") from error
        except StalePlan as error:
            altered = "a table was altered while the unit ran; nothing is committed"
            raise DatabaseUnable(altered, sqlstate=UNSUPPORTED) from error
        except StandbyAtBegin as error:
            raise standby_takes_no_writes() from error

    async def _hop[T](
        self, unit: Unit, pooled: PooledConnection, function: Callable[..., T], args: Any, kwargs: Any
    ) -> T:
        """Run the unit on a thread; once cancelled, see to it that it ends, and tell how it ended."""
        self._running[unit] = function, time.perf_counter(), trio.lowlevel.current_task().name
        try:
            value = await unit.run(perform, unit, pooled, self._engine, function, args, kwargs)
        except trio.Cancelled:
            with trio.CancelScope(shield=True):  # bounded: see Unit.stop
                await unit.stop()
            how = Cancelled.CUT if unit.was_cut else Cancelled.TOO_LATE if unit.committed else Cancelled.STOPPED
            self._counters.cancels[how] += 1
            if unit.committed:
                self._notifier.add(unit.notifications)
                return cast("T", unit.value)  # noqa: ASYNC104  too late to cancel; the next checkpoint delivers it
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
            ours = translate(error, standby=pooled.standby)
            if ours is None:
                raise
            self._complaints.tell(_name(function), state, error)
            raise ours from error
        else:
            self._notifier.add(unit.notifications)
            return value
        finally:
            del self._running[unit]
            self._counters.cancels_sent += unit.cancels_sent
            self._counters.lines_cut += unit.was_cut
            if unit.tainted or unit.was_cut:
                pooled.close()
            self._pool.give(pooled)

    def _account(self, function: Callable[..., Any], outcome: Outcome, seconds: float) -> None:
        self._counters.units[outcome] += 1
        if seconds < self._slow and self.on_unit is None:
            return
        name = _name(function)
        if seconds >= self._slow:
            log.warning("slow unit", unit=name, seconds=round(seconds, 3), outcome=outcome)
        if self.on_unit is not None:
            self.on_unit(name, outcome, seconds)


def standby_takes_no_writes() -> DatabaseUnable:
    return DatabaseUnable(STANDBY, sqlstate=READ_ONLY)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


@asynccontextmanager
async def open_database(
    settings: PlatformSettings, *, migrations: Path | None = None, on_unit: UnitObserver | None = None
) -> AsyncIterator[Database]:
    """Open the door; the database need not be reachable yet. Units must have ended before the scope does."""
    code = read_code_schema(migrations or find_migrations())
    engine = create_engine_over()
    # the dialect's events: with one of the engine's own, every statement would be prepared for all of them
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(engine, name, refuse_statement)
    event.listen(engine, "handle_error", keep_connection)
    engine.dialect.do_commit = refuse_commit  # type: ignore[method-assign,assignment]  # its event is the engine's
    background = Background()
    async with trio.open_nursery() as nursery:
        pool = Pool(Address.pool(settings), nursery)
        watch = Watch(Address.pool(settings), code, ceilings(settings), pool.note_primary)
        nursery.start_soon(background.settle)
        nursery.start_soon(background.keep_running, watch.run)
        database = Database(settings, engine, pool, watch, background=background, on_unit=on_unit)
        nursery.start_soon(background.keep_running, database._notifier.send)
        nursery.start_soon(background.keep_running, database._listener.run)
        try:
            yield database
        finally:
            nursery.cancel_scope.cancel()
            pool.close()
            engine.dispose()
