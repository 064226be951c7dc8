"""The worker: runs the jobs that it has claimed, keeps their leases, and hands back what it cannot end.

Theory of operation. One task claims (claims.py), one extends the leases (`beat`), and one writes what async jobs have
done (done.py). They run until the worker is stopped, whatever the database does. A slot is a task that runs jobs one
after the other: there are as many as jobs that wait here, and at most `concurrency`. It ends when none waits, or when a
job has left something in its context, which is none of the next one's.

A job's cancel scope has one deadline, the earlier of two: that of the attempt, and that of the lease as far as this
process knows. So a worker that is cut off from the database ends a job by itself when another may begin it, and a job
runs in two places at once only where a process was frozen, or holds what cannot be cancelled. What ended by the lease,
or by a stop, is handed back and no attempt is spent; so is what waits longer than PATIENCE for a slot.
"""

import os
import secrets
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from typing import Any

import structlog
import trio
from sqlalchemy import Connection
from structlog.contextvars import bind_contextvars

from service.platform.database import Database
from service.platform.failures import as_failure
from service.platform.jobs import store
from service.platform.jobs.claims import Claims
from service.platform.jobs.declare import Job, JobContext, refuse_unrun
from service.platform.jobs.done import Done
from service.platform.jobs.faults import describe, is_the_databases
from service.platform.jobs.held import Held
from service.platform.jobs.ledger import Ledger
from service.platform.jobs.running import LEASE, Running, Why
from service.platform.jobs.statistics import JobStatistics
from service.platform.jobs.store import Claimed, ClaimLost
from service.platform.jobs.table import CHANNEL, LATER
from service.platform.settings import PlatformSettings
from service.platform.telemetry.tracing import Tracing

BEAT = 0.75  # seconds between two extensions of all leases
HAND_BACK = 2.0  # seconds for writing what is handed back at the end
SLICE = 0.001  # seconds after which a slot lets others have the loop, though its jobs never wait for anything

log = structlog.get_logger(__name__)

# structlog's own variables, set without its detour, as a job may be short.
_JOB, _JOB_ID = (token.var for token in Context().run(bind_contextvars, job="", job_id=0).values())


class Worker:
    """One per process. Up to `concurrency` jobs at once, on `database`; what is written about them goes over `own`."""

    def __init__(
        self,
        database: Database,
        own: Database,
        kinds: Sequence[Job[...]],
        settings: PlatformSettings,
        statistics: JobStatistics,
        *,
        concurrency: int,
        tracing: Tracing | None = None,
    ) -> None:
        self.name = f"{socket.gethostname()[:60]}-{os.getpid()}-{secrets.token_hex(3)}"
        self._database = database
        self._kinds = {one.name: one for one in kinds}
        self._settings = settings
        self._statistics = statistics
        self._tracing = tracing
        self._held = Held(concurrency)
        self.ledger = Ledger(own, statistics, written=self.wake, due=self._look_after)
        self._claims = Claims(
            self.ledger,
            self._held,
            self._kinds,
            statistics,
            worker=self.name,
            age=settings.jobs_retention,
            begin=self._fill_slots,
        )
        self._done = Done(self.ledger, self._held, self._claims)
        self._slots = 0
        self._context: Context = copy_context()
        self._nursery: trio.Nursery  # of `open_slots`

    @property
    def running(self) -> int:
        return len(self._held)

    @property
    def overdue(self) -> Counter[str]:
        return self._held.count_overdue()

    @property
    def tasks(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """What runs for ever inside of `open_slots`, and is begun again after an error of the database."""
        return self.listen, self._claims.take, self.beat, self._done.write

    def wake(self) -> None:
        """Look for work now."""
        self._claims.wake()

    def _look_after(self, seconds: float) -> None:
        self._claims.look_after(seconds)

    @asynccontextmanager
    async def open_slots(self) -> AsyncIterator[None]:
        """Let jobs run until the scope ends; `tasks` end inside of it, and may begin one as long as they live."""
        async with trio.open_nursery() as self._nursery:
            self._context = copy_context()
            yield
            self._nursery.cancel_scope.cancel()

    def stop_claiming(self) -> None:
        self._claims.stop()

    async def stop(self, *, within: float) -> None:
        """Claim no more; give what runs so many seconds, and hand back the rest."""
        self.stop_claiming()
        with trio.move_on_after(within):
            await self._claims.settle()
            await self._held.wait_empty()
            await self._claims.wait_sure()
        with trio.move_on_after(HAND_BACK) as late:
            await self._let_go()
            await self._claims.settle()
            await self._let_go()  # of what was still asked for, too
            await self._held.wait_empty()
            await self._claims.wait_sure()
        if late.cancelled_caught and self._held:
            log.warning("jobs not handed back", ids=sorted(one.claimed.id for one in self._held),
                        when="their leases end")  # fmt: skip

    async def _let_go(self) -> None:
        """Cancel what runs, and hand back what has not begun."""
        for running in self._held:
            running.cancel(Why.STOP)
        await self._hand_back(self._held.take_waiting())

    async def listen(self) -> None:
        async with self.ledger.own.listen(CHANNEL) as wakeups:
            async for payloads in wakeups:
                self.wake()
                if payloads is None or LATER in payloads:
                    self._look_after(0)

    async def beat(self) -> None:
        """Extend the leases of all that is held; what is not ours any more is cancelled."""
        while True:
            await trio.sleep(BEAT)
            if impatient := self._held.take_impatient():
                self._nursery.start_soon(self._hand_back, impatient)  # apart from who extends the leases
            self._tell_overdue()
            claims = [running.claimed for running in self._held]
            if not claims:
                continue
            lease = trio.current_time() + LEASE
            still = await self.ledger.ask(store.extend, claims, lease=LEASE)
            for one in claims:
                self._extend(one, lease if one.id in still else None)

    def _extend(self, claimed: Claimed, lease: float | None) -> None:
        running = self._held.get(claimed)
        if running is None:
            return
        if lease is None:
            running.cancel(Why.LEASE)
        else:
            running.extend(lease)

    def _tell_overdue(self) -> None:
        """Tell once of each job that cannot be cancelled: on a thread, or shielded, it waits for nobody knows what."""
        for one in self._held.overdue():
            if not one.told:
                one.told = True
                log.warning("job does not end", kind=one.claimed.kind, id=one.claimed.id,
                            deadline=self._kinds[one.claimed.kind].deadline)  # fmt: skip

    async def _hand_back(self, waiting: Sequence[Running]) -> None:
        """Hand back what has not begun."""
        if waiting:
            claims = [one.claimed for one in waiting]
            await self.ledger.hand_back(claims)
            self._claims.drop(claims)

    # slots

    def _fill_slots(self) -> None:
        for _ in range(min(len(self._held.waiting), self._held.concurrency - self._slots)):
            self._slots += 1
            self._context.run(self._nursery.start_soon, self._work)

    async def _work(self) -> None:
        """Be a slot."""
        task, yielded = trio.lowlevel.current_task(), trio.current_time()
        while self._held.waiting:
            running = self._held.waiting.popleft()
            now = trio.current_time()
            if running.may_begin(now):
                task.name = f"job {running.claimed.kind} {running.claimed.id}"
                await self._perform(running, now)
            else:
                await self._hand_back([running])
            if copy_context() != self._context:
                break
            if trio.current_time() - yielded > SLICE:
                await trio.lowlevel.checkpoint()
                yielded = trio.current_time()
        self._slots -= 1
        self._fill_slots()

    async def _perform(self, running: Running, begun: float) -> None:
        one, kind = running.claimed, self._kinds[running.claimed.kind]
        self._statistics.observe_wait(one.waited, one.kind)
        span = self._tracing and self._tracing.begin_job(one.kind, one.trace)
        outcome = "crashed"
        try:
            try:
                error = await self._execute(running, kind, begun)
            finally:
                running.has_returned = True
                self._held.note_seconds(trio.current_time() - begun)
            outcome = await self._end(running, kind, error)
        finally:
            if self._tracing and span:
                self._tracing.end_job(span, outcome)
            self._statistics.observe_run(trio.current_time() - begun, one.kind, outcome)

    async def _execute(self, running: Running, kind: Job[...], begun: float) -> BaseException | None:
        """Call the job's function, and let each line that is logged meanwhile name the job; return what it raised."""
        one = running.claimed
        named, numbered = _JOB.set(one.kind), _JOB_ID.set(one.id)
        try:
            with running.begin(begun, kind.deadline):
                arguments = kind.load(one.arguments)
                if kind.is_async:
                    context = JobContext(one.key, one.failures + 1, self._database, self._settings)
                    await kind.function(context, **arguments)
                else:
                    await self._database.run(unit_of(kind), one, arguments, timeout=self._timeout(kind))
        except (trio.Cancelled, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if (failure := as_failure(error)) is None:
                raise
            return failure
        finally:
            _JOB.reset(named)  # as it was, or the slot would end
            _JOB_ID.reset(numbered)
        return None

    def _timeout(self, kind: Job[...]) -> float | None:
        return kind.deadline if kind.deadline > self._settings.request_deadline else None

    async def _end(self, running: Running, kind: Job[...], error: BaseException | None) -> str:
        """Write how an attempt ended, and return it in a word."""
        one = running.claimed
        cancelled = running.cancelled or (error is not None and running.why is not None)
        if error is None and not cancelled and kind.is_async:
            self._done.note(one)
            return "done"
        if isinstance(error, ClaimLost):
            outcome = self.ledger.lost(one)
        elif cancelled:
            outcome = await self.ledger.cancelled(running, kind)
        elif error is None:
            outcome = "done"  # with its own writes
        elif is_the_databases(error):
            outcome = await self.ledger.kept_from(one, kind, error)
        else:
            outcome = await self.ledger.failed(one, kind, describe(error), error)
        self._claims.drop([one])
        return outcome


def unit_of(kind: Job[...]) -> Callable[..., None]:
    """Return the unit of a SQL job: its writes and its end are one transaction."""

    def perform(connection: Connection, one: Claimed, arguments: Mapping[str, Any], *, timeout: float | None) -> None:
        if timeout is not None:  # not by a query: behind one, SET TRANSACTION would be too late
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {round(timeout * 1000)}")
        refuse_unrun(kind, kind.function(connection, **arguments))
        store.finish(connection, one)

    perform.__qualname__ = f"job {kind.name}"
    return perform
