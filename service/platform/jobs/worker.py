"""The worker: claims jobs, runs them, keeps their leases, and hands back what it cannot end.

Theory of operation. One task claims (`take`), one extends the leases (`beat`), and one writes what async jobs have done
(`note_done`). They run until the worker is stopped, whatever the database does. A slot is a task that runs jobs one
after the other: there are as many as jobs that wait here, and at most `concurrency`. It ends when none waits, or when a
job has left something in its context, which is none of the next one's.

A job's cancel scope has one deadline, the earlier of two: that of the attempt, and that of the lease as far as this
process knows. So a worker that is cut off from the database ends a job by itself when another may begin it, and a job
runs in two places at once only where a process was frozen, or holds what cannot be cancelled. What ended by the lease,
or by a stop, is handed back and no attempt is spent.

Quick jobs are claimed ahead of the slots that will be free for them, as many as AHEAD seconds are enough for at the
pace of late: a claim costs as much as several of them. One that then waits longer than PATIENCE for a slot is handed
back. An async job's slot is free when its function has returned; that it is done is written with others, LINGER seconds
later at most. Until then it is held like one that runs, and is run again should this process die.

What is still to be written when the database is away is written when it is back: the row stays in `_running`, so that
its lease is extended first, as a rescue waits for the time of a lease after a server's start.
"""

import math
import os
import random
import secrets
import socket
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from datetime import datetime
from functools import partial
from typing import Any, Concatenate

import structlog
import trio
from sqlalchemy import Connection, text

from service.platform.database import DATABASE_ERRORS, Database
from service.platform.errors import DatabaseAway
from service.platform.jobs import store
from service.platform.jobs.declare import ArgumentsWrong, Job, JobContext
from service.platform.jobs.faults import describe, is_the_databases
from service.platform.jobs.running import Running, Why
from service.platform.jobs.statistics import JobStatistics
from service.platform.jobs.store import Claimed, ClaimLost
from service.platform.settings import PlatformSettings
from service.platform.telemetry.tracing import Tracing

LEASE = 3.0  # seconds; with IDLE the time after which a worker that is gone is replaced, together below 5
BEAT = 0.75  # seconds between two extensions of all leases
IDLE = 4.0  # seconds between two looks at the table when nothing is heard
SOON = 0.02  # seconds behind a moment that the database has named, so that it has come when we ask
LOCKED = 0.1  # seconds between two looks at a lease that is over, and that cannot be ended yet
HAND_BACK = 2.0  # seconds for writing what is handed back at the end
AHEAD = 0.05  # seconds of work that may be claimed ahead
MOST_AHEAD = 20  # times the concurrency; and as many may wait to be written
LINGER = 0.01  # seconds that what is done waits for more that is, and what is enqueued after a claim for more that is
SLICE = 0.001  # seconds after which a slot lets others have the loop, though its jobs never wait for anything
NEWEST = 0.05  # the newest job's share in the mean
MISFITS = 8  # retries at least of a job whose arguments do not fit: some four minutes
PAUSES = (0.1, 0.25, 0.5, 1.0)  # seconds between two tries to write an outcome, the last again and again

log = structlog.get_logger(__name__)


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
        self._own = own
        self._kinds = {one.name: one for one in kinds}
        self._settings = settings
        self._statistics = statistics
        self._concurrency = concurrency
        self._tracing = tracing
        self._running: dict[int, Running] = {}
        self._waiting: deque[Running] = deque()  # those of them that have not begun
        self._slots = 0
        self._context: Context = copy_context()
        self._nursery: trio.Nursery  # of `run`
        self._mean = AHEAD  # seconds that a job takes, of late
        self._done: list[Claimed] = []
        self._noting = 0  # jobs whose function has returned, and that are not yet written as done
        self._any_done = trio.Event()
        self._wake = trio.Event()
        self._worth_it = trio.Event()  # another claim is
        self._empty = trio.Event()
        self._turns: dict[str, datetime] = {}
        self._unknown: set[str] = set()  # kinds that have been told
        self._claiming = trio.Lock()
        self._stopping = False

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def overdue(self) -> Counter[str]:
        """Return how many of each kind have not ended though their deadline is over: each has a slot for itself."""
        now = trio.current_time()
        return Counter(one.claimed.kind for one in self._running.values() if one.is_overdue(now))

    def wake(self) -> None:
        """Look for work now: something was enqueued, or a limit is free."""
        self._wake.set()

    async def run_jobs(self, task_status: trio.TaskStatus[None]) -> None:
        """Run the jobs that `take` claims, apart from it: an error of one is no trouble of the claims."""
        async with trio.open_nursery() as self._nursery:
            self._context = copy_context()
            task_status.started()
            await trio.sleep_forever()

    def stop_claiming(self) -> None:
        self._stopping = True
        self._wake.set()
        self._worth_it.set()

    async def stop(self, *, within: float) -> None:
        """Claim no more; give what runs so many seconds, and hand back the rest."""
        self.stop_claiming()
        with trio.move_on_after(within):
            async with self._claiming:  # what was asked for is ours by now
                pass
            await self._wait_empty()
        for running in self._running.values():
            running.cancel(Why.STOP)
        with trio.move_on_after(HAND_BACK) as late:
            await self._hand_back_waiting()
            await self._wait_empty()
        if late.cancelled_caught:
            log.warning("jobs not handed back", ids=sorted(self._running), when="their leases end")

    async def _wait_empty(self) -> None:
        while self._running:
            self._empty = trio.Event()
            await self._empty.wait()

    # what runs for ever

    async def listen(self, channel: str) -> None:
        async with self._own.listen(channel) as wakeups:
            async for _ in wakeups:
                self.wake()

    async def take(self) -> None:
        """Claim what is due, as long as there is room; look at the table when nothing is heard for some time."""
        look_at = -math.inf
        while not self._stopping:
            woken, self._wake = self._wake.is_set(), trio.Event()
            if trio.current_time() >= look_at:
                ready, look_at = await self._look()
                woken = woken or ready
            room = self._room(self._ahead)
            claimed = await self._claim(room) if woken and room else 0
            if woken and claimed == room:
                self._wake.set()  # there may be more
                await self._wait_room(look_at)
            else:
                if claimed:
                    await trio.sleep(LINGER)
                with trio.move_on_at(look_at):
                    await self._wake.wait()

    @property
    def _ahead(self) -> int:
        return int(min(MOST_AHEAD, AHEAD / max(self._mean, 1e-6)) * self._concurrency)

    def _room(self, ahead: int) -> int:
        """Return how many more may be claimed now."""
        if self._noting > MOST_AHEAD * self._concurrency:
            return 0
        return max(0, self._concurrency + ahead - (len(self._running) - self._noting))

    def _is_worth_it(self) -> bool:
        """Tell whether there is room for one, or for as many as a claim is worth where slots have work meanwhile."""
        ahead = self._ahead
        return self._room(ahead) >= max(1, ahead // 2)

    async def _wait_room(self, look_at: float) -> None:
        with trio.move_on_at(look_at):  # then what others have lost is rescued all the same
            while not self._is_worth_it() and not self._stopping:
                self._worth_it = trio.Event()
                await self._worth_it.wait()

    async def _look(self) -> tuple[bool, float]:
        """Rescue, let turns wait, and return whether something is due, and when to look again."""
        begun = trio.current_time()
        seen = await self._ask(store.look, tuple(self._kinds.values()), lease=LEASE)
        for kind, count in seen.rescued.items():
            self._statistics.rescued[kind] += count
            log.warning("jobs rescued", kind=kind, count=count)
        turned, next_turn = await self._take_turns(seen.now)
        lease = None if seen.lease is None else max(seen.lease, LOCKED)  # one that is over is left where it is locked
        moments = [one + SOON for one in (seen.due, lease, next_turn) if one is not None]
        idle = IDLE * random.uniform(0.75, 1)  # noqa: S311  spreads replicas, keeps no secret
        pause = max(SOON, min([idle, *moments]))
        return seen.ready or turned or bool(seen.rescued), begun + pause

    async def _take_turns(self, now: datetime) -> tuple[bool, float | None]:
        turned, nexts = False, []
        for one in self._kinds.values():
            if one.schedule is None:
                continue
            turn = one.schedule.latest(now)
            if self._turns.get(one.name) != turn and await self._ask(store.take_turn, one, turn):
                self._turns[one.name] = turn
                turned = True
            nexts.append((one.schedule.following(now) - now).total_seconds())
        return turned, min(nexts, default=None)

    async def _claim(self, room: int) -> int:
        async with self._claiming:
            if self._stopping:
                return 0
            lease = trio.current_time() + LEASE
            kinds = tuple(self._kinds.values())
            claimed = await self._ask(store.claim, kinds, most=room, worker=self.name, lease=LEASE)
            for one in claimed:
                running = self._running[one.id] = Running(one, lease)
                self._waiting.append(running)
            self._fill_slots()
            return len(claimed)

    def _fill_slots(self) -> None:
        for _ in range(min(len(self._waiting), self._concurrency - self._slots)):
            self._slots += 1
            self._context.run(self._nursery.start_soon, self._work)

    async def beat(self) -> None:
        """Extend the leases of all that runs; what is not ours any more is cancelled."""
        while True:
            await trio.sleep(BEAT)
            self._hand_back_impatient()
            self._tell_overdue()
            held = [running.claimed for running in self._running.values()]
            if not held:
                continue
            lease = trio.current_time() + LEASE
            still = await self._ask(store.extend, held, lease=LEASE)
            for claimed in held:
                self._extend(claimed, lease if claimed.id in still else None)

    def _tell_overdue(self) -> None:
        """Tell once of each job that cannot be cancelled: on a thread, or shielded, it waits for nobody knows what."""
        now = trio.current_time()
        for one in self._running.values():
            if one.is_overdue(now) and not one.told:
                one.told = True
                log.warning("job does not end", kind=one.claimed.kind, id=one.claimed.id,
                            deadline=self._kinds[one.claimed.kind].deadline)  # fmt: skip

    def _extend(self, claimed: Claimed, lease: float | None) -> None:
        running = self._running.get(claimed.id)
        if running is None or running.claimed is not claimed:
            return
        if lease is None:
            running.cancel(Why.LEASE)
        else:
            running.extend(lease)

    async def note_done(self) -> None:
        """Write what async jobs have done, all that there is at once."""
        while True:
            await self._any_done.wait()
            if len(self._running) > len(self._done):
                await trio.sleep(LINGER)
            some, self._done, self._any_done = self._done, [], trio.Event()
            try:
                await self._ask(store.finish_many, some)
            except BaseException:
                self._done = some + self._done
                self._any_done.set()
                raise
            self._noting -= len(some)
            for one in some:
                self._drop(one)
            self._tell_changed()

    async def count(self, every: float) -> None:
        while True:
            self._statistics.table = await self._ask(store.counts)
            self._tell_unknown()
            await trio.sleep(every)

    def _tell_unknown(self) -> None:
        """Tell once of each kind that is due and that no feature here names; who enqueues cannot know."""
        for one in self._statistics.table:
            if one.state == "waiting" and one.due and one.kind not in self._kinds and one.kind not in self._unknown:
                self._unknown.add(one.kind)
                log.warning("jobs wait that this release does not know", kind=one.kind, count=one.due,
                            hint="a feature names them in `jobs`, or another release enqueued them")  # fmt: skip

    async def sweep(self, every: float, age: float) -> None:
        while True:
            await trio.sleep(every)
            while await self._ask(store.sweep, age=age):  # noqa: ASYNC110  more than fit into one
                await trio.sleep(BEAT)

    async def _ask[**P, T](
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit about jobs, on a connection that no job can take; a server that does not answer is away."""
        try:
            with trio.fail_after(LEASE):
                return await self._own.run(store.brief(function), *args, **kwargs)
        except trio.TooSlowError as error:
            raise DatabaseAway(f"PostgreSQL did not answer within {LEASE:g} s") from error

    # one job

    async def _work(self) -> None:
        """Be a slot."""
        task, yielded = trio.lowlevel.current_task(), trio.current_time()
        while self._waiting:
            running = self._waiting.popleft()
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
                self._mean += NEWEST * (trio.current_time() - begun - self._mean)
            outcome = await self._end(running, kind, error)
        finally:
            if self._tracing and span:
                self._tracing.end_job(span, outcome)
            self._statistics.observe_run(trio.current_time() - begun, one.kind, outcome)

    async def _execute(self, running: Running, kind: Job[...], begun: float) -> BaseException | None:
        """Call the job's function; return what it raised."""
        one = running.claimed
        try:
            with running.begin(begun, kind.deadline):
                arguments = kind.load(one.arguments)
                if kind.is_async:
                    context = JobContext(one.key, one.failures + 1, self._database, self._settings)
                    await kind.function(context, **arguments)
                else:
                    await self._database.run(unit_of(kind), one, arguments, timeout=self._timeout(kind))
        except (Exception, SystemExit) as error:
            return error
        return None

    async def _end(self, running: Running, kind: Job[...], error: BaseException | None) -> str:
        """Write how an attempt ended, and return it in a word."""
        one = running.claimed
        cancelled = running.cancelled or (error is not None and running.why is not None)
        if error is None and not cancelled and kind.is_async:
            self._note(one)
            return "done"
        if isinstance(error, ClaimLost):
            outcome = self._lost(one)
        elif cancelled:
            outcome = await self._cancelled(running, kind)
        elif error is None:
            outcome = "done"  # with its own writes
        elif is_the_databases(error):
            outcome = await self._kept_from(one, kind, error)
        else:
            outcome = await self._failed(one, kind, describe(error), error)
        self._forget(one)
        return outcome

    def _note(self, one: Claimed) -> None:
        self._noting += 1
        self._done.append(one)
        self._any_done.set()
        self._tell_changed()

    def _forget(self, one: Claimed) -> None:
        self._drop(one)
        self._tell_changed()

    def _drop(self, one: Claimed) -> None:
        running = self._running.get(one.id)
        if running is not None and running.claimed is one:
            del self._running[one.id]
        if self._kinds[one.kind].concurrency is not None:
            self.wake()

    def _tell_changed(self) -> None:
        if not self._running:
            self._empty.set()
        if self._is_worth_it():
            self._worth_it.set()

    def _timeout(self, kind: Job[...]) -> float | None:
        return kind.deadline if kind.deadline > self._settings.request_deadline else None

    async def _cancelled(self, running: Running, kind: Job[...]) -> str:
        if running.reason() is Why.DEADLINE:
            return await self._failed(running.claimed, kind, f"the deadline of {kind.deadline:g} s is over", None)
        if running.reason() is Why.LEASE:
            log.warning("job cut off", kind=kind.name, id=running.claimed.id)
        return await self._write(running.claimed, store.hand_back, "handed back")

    async def _kept_from(self, one: Claimed, kind: Job[...], error: BaseException) -> str:
        """Hand back a job that the database had no room for now."""
        pause, why = kind.pause(1), describe(error)
        log.warning("job handed back", kind=kind.name, id=one.id, error=why, again_in=round(pause, 1))
        return await self._write(one, partial(store.hand_back, pause=pause, why=why), "handed back")

    async def _failed(self, one: Claimed, kind: Job[...], why: str, error: BaseException | None) -> str:
        # What was never begun may be another release's: it is repeated through a rollout, whatever its retries.
        retries = max(kind.retries, MISFITS) if isinstance(error, ArgumentsWrong) else kind.retries
        failures = one.failures + 1
        dead, pause = failures > retries, kind.pause(failures)
        tell = log.error if dead else log.warning
        again = None if dead else round(pause, 1)
        tell("job dead" if dead else "job failed", kind=kind.name, id=one.id, attempt=failures, error=why,
             again_in=again, exc_info=None if isinstance(error, ArgumentsWrong) else error)  # fmt: skip
        fail = partial(store.fail, error=why, retries=retries, pause=pause)
        return await self._write(one, fail, "dead" if dead else "failed")

    async def _hand_back_waiting(self) -> None:
        """Hand back all that has not begun."""
        waiting = [*self._waiting]
        self._waiting.clear()
        await self._hand_back(waiting)

    def _hand_back_impatient(self) -> None:
        """Hand back what has waited too long for a slot, or is not ours any more; apart from who extends the leases."""
        now = trio.current_time()
        waiting = [one for one in self._waiting if not one.may_begin(now) or one.patient < now]
        for one in waiting:
            self._waiting.remove(one)
        if waiting:
            self._nursery.start_soon(self._hand_back, waiting)

    async def _hand_back(self, waiting: Sequence[Running]) -> None:
        if not waiting:
            return
        claims = [one.claimed for one in waiting]
        held = await self._insist(store.hand_back_many, claims)
        for one in claims:
            if one.id not in held:
                self._lost(one)
            self._forget(one)

    async def _write(self, one: Claimed, change: Callable[[Connection, Claimed], str], outcome: str) -> str:
        """Write how an attempt ended; what was lost meanwhile is another's."""
        try:
            await self._insist(change, one)
        except ClaimLost:
            return self._lost(one)
        return outcome

    async def _insist[**P, T](
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit about jobs, however long the database is away."""
        tries = 0
        while True:
            try:
                value = await self._ask(function, *args, **kwargs)
            except DATABASE_ERRORS:
                await trio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1
            else:
                self._wake.set()
                return value

    def _lost(self, one: Claimed) -> str:
        self._statistics.lost[one.kind] += 1
        log.warning("job lost", kind=one.kind, id=one.id, claim=one.claim)
        return "lost"


def unit_of(kind: Job[...]) -> Callable[..., None]:
    """Return the unit of a SQL job: its writes and its end are one transaction."""

    def perform(connection: Connection, one: Claimed, arguments: Mapping[str, Any], *, timeout: float | None) -> None:
        if timeout is not None:
            connection.execute(_TIMEOUT, {"timeout": f"{round(timeout * 1000)}ms"})
        kind.function(connection, **arguments)
        store.finish(connection, one)

    perform.__qualname__ = f"job {kind.name}"
    return perform


_TIMEOUT = text("SELECT set_config('statement_timeout', :timeout, true)")
