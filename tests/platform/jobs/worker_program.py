"""`python -m tests.platform.jobs.worker_program [BUG] work`: workers that know the checker's kinds, perhaps with a bug.

A bug is one that a library of jobs is known for. None of them shows in a log or a status: only the checker can tell.
"""

import math
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import trio
from quart import Blueprint
from sqlalchemy import Connection, text

from service.platform.feature import Feature, Resources
from service.platform.jobs import JobContext, enqueue, job, store, worker
from service.platform.jobs.claims import Claims
from service.platform.jobs.store import Claimed
from service.platform.jobs.worker import Worker
from service.platform.process.end import ending
from service.platform.process.start import end_at_signals, open_standard_streams
from service.platform.settings import PlatformSettings
from service.platform.verbs import Program, run_program

PARALLEL = 3
_UNGUARDED = text("""
    UPDATE job SET state = 'done', leased_until = NULL, finished_at = COALESCE(finished_at, now()) WHERE id = :id""")
_TURN = text("INSERT INTO turn SELECT :number, pg_current_xact_id(), pg_current_snapshot()")
_EFFECT = text("INSERT INTO effect (number, how) VALUES (:number, :how)")


def create_tables(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE effect (id bigserial PRIMARY KEY, number int NOT NULL, how text NOT NULL)"))
    connection.execute(text("CREATE TABLE tally (name text PRIMARY KEY, value int NOT NULL)"))
    connection.execute(text("INSERT INTO tally VALUES ('all', 0)"))
    connection.execute(text("CREATE TABLE turn (number int, transaction xid8, seen pg_snapshot)"))
    connection.execute(text("CREATE TABLE wanted (number int PRIMARY KEY)"))


@job(retries=40, deadline=30)
def quick(connection: Connection, *, number: int) -> None:
    connection.execute(_EFFECT, {"number": number, "how": "sql"})


@job(retries=40, deadline=30)
def slow(connection: Connection, *, number: int, seconds: float) -> None:
    """Write first, and take longer than a lease: what others do meanwhile must not count twice."""
    connection.execute(_EFFECT, {"number": number, "how": "sql"})
    connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})


@job(retries=40, deadline=30)
def contended(connection: Connection, *, number: int) -> None:
    connection.execute(text("UPDATE tally SET value = value + 1 WHERE name = 'all'"))
    connection.execute(_EFFECT, {"number": number, "how": "sql"})


@job(retries=40, deadline=30)
def parent(connection: Connection, *, number: int, children: list[int]) -> None:
    connection.execute(_EFFECT, {"number": number, "how": "sql"})
    for child in children:
        enqueue(connection, quick, number=child)


@job(retries=40, deadline=30)
async def outside(context: JobContext, *, number: int, seconds: float) -> None:
    await trio.sleep(seconds)
    await context.database.run(_note_outside, number=number)


def _note_outside(connection: Connection, *, number: int) -> None:
    connection.execute(_EFFECT, {"number": number, "how": "outside"})


@job(retries=1, deadline=30)
def hopeless(connection: Connection, *, number: int) -> None:
    connection.execute(_EFFECT, {"number": number, "how": "sql"})
    raise RuntimeError("it always fails")


@job(retries=1, deadline=0.5)
async def hanging(context: JobContext, *, number: int) -> None:
    await trio.sleep_forever()


@job(retries=40, deadline=30, concurrency=1)
def alone(connection: Connection, *, number: int) -> None:
    """Only one at a time: each leaves what it has seen, by which two that were beside each other are found.

    Of those that count, that is: the transaction of a worker that is frozen lasts beside that of the next attempt.
    """
    connection.execute(_TURN, {"number": number})
    connection.execute(_EFFECT, {"number": number, "how": "sql"})
    connection.execute(text("SELECT pg_sleep(0.05)"))


KINDS = (quick, slow, contended, parent, outside, hopeless, hanging, alone)


@asynccontextmanager
async def open_checked(resources: Resources) -> AsyncIterator[Blueprint]:
    yield Blueprint("checked", __name__)


FEATURE = Feature("checked", open=open_checked, jobs=KINDS)


# what other libraries of jobs do, one fault for each bug


def acknowledge_without_guard() -> None:
    """End a job by its id alone, whoever holds it, and trust that a lease lasts."""

    def finish(connection: Connection, one: Claimed) -> None:
        connection.execute(_UNGUARDED, {"id": one.id})

    claim = Claims.claim

    async def claim_for_ever(self: Claims, room: int) -> int:
        count = await claim(self, room)
        for running in self._held:
            running.extend(math.inf)
        return count

    def extend(self: Worker, claimed: Claimed, lease: float | None) -> None: ...

    store.finish = finish
    Claims.claim = claim_for_ever  # type: ignore[method-assign]
    Worker._extend = extend  # type: ignore[method-assign]


def no_heartbeat() -> None:
    """Extend no lease, so that a live job is run a second time because it took long."""

    async def beat(self: Worker) -> None:
        await trio.sleep_forever()

    Worker.beat = beat  # type: ignore[method-assign]
    acknowledge_without_guard()


def forget_the_lost() -> None:
    """Rescue nothing: what a killed worker held is stuck in `running` for ever."""
    store.rescue = lambda *_, **__: []


def fail_the_lost() -> None:
    """Take a lost worker for a failed job: dead instead of run again."""
    rescue = store.rescue
    store.rescue = lambda connection, retries, **how: rescue(connection, dict.fromkeys(retries, 0), **how)


def finish_apart() -> None:
    """Write a SQL job's end in a transaction of its own, after its effects."""

    def unit_of(kind: Any) -> Callable[..., None]:
        def perform(connection: Connection, one: Claimed, arguments: Any, *, timeout: float | None) -> None:
            kind.function(connection, **arguments)

        return perform

    end = Worker._end

    async def then_finish(self: Worker, running: Any, kind: Any, error: BaseException | None) -> str:
        if error is None and not kind.is_async:
            await trio.sleep(0.1)
            await self.ledger.ask(store.finish, running.claimed)
        return await end(self, running, kind, error)

    worker.unit_of = unit_of
    Worker._end = then_finish  # type: ignore[method-assign]


_BUGS = (acknowledge_without_guard, no_heartbeat, forget_the_lost, fail_the_lost, finish_apart)
BUGS = {one.__name__: one for one in _BUGS}


def main() -> None:
    end_at_signals()
    open_standard_streams()
    words = sys.argv[1:]
    if words and words[0] in BUGS:
        BUGS[words.pop(0)]()
    with ending():
        run_program(Program(PlatformSettings, (FEATURE,)), words)


if __name__ == "__main__":
    main()
