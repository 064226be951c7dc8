"""The door: `run` and `read` for units of work, `listen` for notifications, and what is known about the database."""

import copy
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Self, overload

import trio
from sqlalchemy import Connection, Engine, event

from service.platform.database.address import Address, ceilings
from service.platform.database.background import Background
from service.platform.database.lane import Lane, Started
from service.platform.database.listen import Listener, Wakeups
from service.platform.database.pool import Pool
from service.platform.database.pooled import PooledConnection, create_engine_over
from service.platform.database.schema import find_migrations, read_code_schema
from service.platform.database.slots import Slots
from service.platform.database.statement import Row, Statement, StatementUnit
from service.platform.database.statistics import (
    DatabaseStatistics,
    InFlight,
    Outcome,
    UnitObserver,
)
from service.platform.database.unit import Unit, keep_connection, refuse_commit, refuse_statement
from service.platform.database.watch import Condition, Watch
from service.platform.database.work import perform
from service.platform.settings import PlatformSettings


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
        self._lane = Lane(settings, pool, background, on_unit=on_unit)
        self._engine = engine
        self._pool = pool
        self._watch = watch
        self._listener = Listener(Address.direct(settings), pool.pids, background.watching)
        self._background = background

    async def run[**P, T](
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit of work in one transaction. It returns: committed. It is cancelled, or raises: not committed.

        The one exception to that is OutcomeUnknown. Raises what else is Unavailable (errors.py) before or without
        committing, and what the function raises. A unit that collides with another is run again, so it does SQL and
        nothing else.
        """
        begin = partial(self._begin, function, args, kwargs, transactional=True)
        value: T = await self._lane.run(_name(function), begin, Outcome.COMMITTED)
        return value

    async def read[**P, T](
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a function that only selects; each statement sees what is committed by then. Raises as `run` does."""
        begin = partial(self._begin, function, args, kwargs, transactional=False)
        value: T = await self._lane.run(_name(function), begin, Outcome.READ)
        return value

    @overload
    async def execute(self, statement: Statement, *values: object) -> list[Row]: ...

    @overload
    async def execute[T](self, statement: Statement, *values: object, before_commit: Callable[[list[Row]], T]) -> T: ...

    async def execute(
        self, statement: Statement, *values: object, before_commit: Callable[[list[Row]], object] = list
    ) -> object:
        """Run one statement in a transaction of its own, and return its rows: two round trips, and no thread.

        For what is often done and soon over, with rows that are few, as the event loop reads them. It ends as `run`
        does, and is run again as a unit is; the driver's errors come without SQLAlchemy's around them. `before_commit`
        gets the rows and makes of them what is returned; what it raises undoes the statement, and is raised.
        """
        return await self._run_statement(statement, values, before_commit, Outcome.COMMITTED)

    async def fetch(self, statement: Statement, *values: object) -> list[Row]:
        """Return the rows of one statement that only selects: one round trip, and no thread.

        It sees what is committed by then. It raises as `execute` does, and a standby answers it, too.
        """
        rows: list[Row] = await self._run_statement(statement, values, list, Outcome.READ)
        return rows

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
        other = copy.copy(self)
        other._lane = self._lane.beside(Slots(connections, queue_wait))
        return other

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
        counters, slots = self._lane.counters, self._lane.slots
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
        """Return the units that run now, the longest first."""
        return self._lane.in_flight()

    async def _run_statement(
        self, statement: Statement, values: Sequence[object], make: Callable[[list[Row]], object], ended: Outcome
    ) -> Any:
        def begin(pooled: PooledConnection) -> Started:
            unit = StatementUnit(pooled, transactional=ended is Outcome.COMMITTED)
            return unit, partial(unit.run, statement, values, make)

        return await self._lane.run(statement.name, begin, ended)

    def _begin(
        self, function: Callable[..., Any], args: Any, kwargs: Any, pooled: PooledConnection, *, transactional: bool
    ) -> Started:
        unit = Unit(pooled, transactional=transactional)
        return unit, partial(unit.run, perform, unit, pooled, self._engine, function, args, kwargs)


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
        nursery.start_soon(background.keep_running, database._lane.notifier.send, database.execute)
        nursery.start_soon(background.keep_running, database._listener.run)
        try:
            yield database
        finally:
            nursery.cancel_scope.cancel()
            pool.close()
            engine.dispose()
