"""Jobs on a real database: enqueued with their unit, run once in effect, repeated, and handed back."""

import json
import re
import select
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import psycopg
import pytest
import structlog
import trio
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from service.platform.database import Database, open_database
from service.platform.database.migrate import migrate
from service.platform.errors import Busy, PeerAway
from service.platform.jobs import (
    ArgumentsWrong,
    Job,
    JobContext,
    Jobs,
    enqueue,
    enqueue_many,
    job,
    open_jobs,
    operators,
    store,
)
from service.platform.jobs.enqueue import insert, take_turn
from service.platform.jobs.ledger import TOLERATED
from service.platform.jobs.running import LEASE
from service.platform.jobs.table import IDLE
from service.platform.jobs.worker import BEAT
from service.platform.settings import PlatformSettings
from service.platform.telemetry import Metrics
from service.platform.telemetry.logs import configure_logs
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.proxy import open_proxy
from tests.platform.jobs import kinds

left = ContextVar("left", default="nothing")
LIMIT = 60  # seconds until something is taken to hang
MANY = 25  # jobs: more than there are looks at the table within that
ALL = (kinds.note, kinds.tell, kinds.fail, kinds.sleep, kinds.wait)


@asynccontextmanager
async def world(
    make_settings: MakeSettings, *used: Job[...], concurrency: int = 5
) -> AsyncIterator[tuple[Database, Jobs]]:
    settings = make_settings(jobs_concurrency=concurrency)
    with trio.fail_after(LIMIT):
        async with open_database(settings) as database:
            await database.run(kinds.create_tables)
            async with open_jobs(database, used or ALL, settings, Metrics()) as jobs:
                yield database, jobs


async def until[T](database: Database, look: Callable[[Connection], T], wanted: T) -> None:
    while (found := await database.read(look)) != wanted:
        print(found)
        await trio.sleep(0.02)


async def test_a_job_is_run_soon_after_its_unit_is_committed(make_settings: MakeSettings) -> None:
    async with world(make_settings) as (database, _):
        await trio.sleep(0.3)
        begun = trio.current_time()
        await database.run(enqueue, kinds.note, number=7)
        await until(database, kinds.effects, [7])
        print(f"{trio.current_time() - begun:.3f} s")
        await database.run(enqueue, kinds.tell, number=8)
        await until(database, kinds.effects, [7, 8])
        await until(database, kinds.states, {"done": 2})


async def test_a_unit_that_fails_enqueues_nothing(make_settings: MakeSettings) -> None:
    def unit(connection: Connection) -> None:
        enqueue(connection, kinds.note, number=1)
        raise RuntimeError("no")

    async with world(make_settings) as (database, _):
        with pytest.raises(RuntimeError):
            await database.run(unit)

        assert await database.read(kinds.states) == {}


async def test_an_argument_by_its_place_is_refused(make_settings: MakeSettings) -> None:
    async with world(make_settings) as (database, _):
        with pytest.raises(ArgumentsWrong, match="job later: its arguments are given by their names"):
            await database.run(enqueue, later, 7)  # type: ignore[arg-type]  # for those who have no checker of types


@job()
def later(connection: Connection, *, days: int = 30) -> None: ...


async def test_what_fails_is_repeated_and_then_dead_and_its_writes_are_gone(make_settings: MakeSettings) -> None:
    async with world(make_settings) as (database, _):
        await database.run(enqueue, kinds.fail, number=1)
        await until(database, kinds.states, {"dead": 1})

        assert await database.read(kinds.effects) == []


async def test_a_stop_hands_back_what_runs(make_settings: MakeSettings) -> None:
    async with world(make_settings) as (database, jobs):
        await database.run(enqueue, kinds.sleep, number=1, seconds=50.0)
        await database.run(enqueue, kinds.wait, number=2, seconds=50.0)
        await until(database, kinds.states, {"running": 2})
        begun = trio.current_time()
        await jobs.stop(within=0.2)

        assert trio.current_time() - begun < 5
        assert await database.read(kinds.states) == {"waiting": 2}


async def test_what_comes_once_claiming_has_stopped_is_left_to_others(make_settings: MakeSettings) -> None:
    """As when a drain begins, which leaves what runs in peace for some time yet."""
    begun_by: list[str] = []

    def noting(worker: str) -> Job[[]]:
        @job(name="noting")
        async def note_worker(_: JobContext) -> None:
            begun_by.append(worker)

        return note_worker

    async with (
        world(make_settings, noting("draining")) as (database, jobs),
        open_jobs(database, (one := noting("other"),), make_settings(), Metrics()),
    ):
        jobs.stop_claiming()
        while database.in_flight():  # what has been asked for may come yet
            await trio.sleep(0.01)
        await database.run(enqueue_many, one, [{} for _ in range(MANY)])
        await until(database, kinds.states, {"done": MANY})

    assert set(begun_by) == {"other"}


def slow_commits(connection: Connection) -> None:
    connection.execute(
        text("""
        CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$""")
    )
    connection.execute(
        text("""
        CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON job DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION take_time()""")
    )


def commits(connection: Connection) -> bool:
    looked = text("SELECT FROM pg_stat_activity WHERE query = 'COMMIT' AND wait_event = 'PgSleep'")
    return bool(connection.execute(looked).all())


def refuse_ends(connection: Connection) -> None:
    connection.execute(text("CREATE SEQUENCE refused"))  # what it counts is not undone
    connection.execute(
        text("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN PERFORM nextval('refused'); RAISE 'no' USING ERRCODE = 'disk_full'; END $$""")
    )
    connection.execute(
        text("""
        CREATE TRIGGER refuse BEFORE UPDATE ON job FOR EACH ROW
        WHEN (new.state = 'done') EXECUTE FUNCTION refuse()""")
    )


def refused(connection: Connection) -> bool:
    return bool(connection.execute(text("SELECT is_called FROM refused")).scalar())


async def test_an_end_that_the_database_did_not_take_is_written_once_it_does(make_settings: MakeSettings) -> None:
    async with world(make_settings) as (database, _):
        await database.run(refuse_ends)
        await database.run(enqueue, kinds.tell, number=1)
        await until(database, refused, True)
        await database.run(lambda connection: connection.execute(text("DROP TRIGGER refuse ON job")))
        await until(database, kinds.states, {"done": 1})

        assert await database.read(kinds.effects) == [1]


async def test_a_claim_that_arrives_when_the_time_to_end_is_over_is_handed_back(make_settings: MakeSettings) -> None:
    async with world(make_settings) as (database, jobs):
        await database.run(slow_commits)
        await database.run(enqueue, kinds.wait, number=1, seconds=50.0)
        await until(database, commits, True)
        await jobs.stop(within=0.1)
        await until(database, commits, False)

        assert await database.read(kinds.states) == {"waiting": 1}


async def test_a_claim_that_arrives_within_the_time_to_end_is_done(make_settings: MakeSettings) -> None:
    async with world(make_settings) as (database, jobs):
        await database.run(slow_commits)
        await database.run(enqueue, kinds.note, number=1)
        await until(database, commits, True)
        await jobs.stop(within=LIMIT)

        assert await database.read(kinds.states) == {"done": 1}


_SLOW_CLAIMS = text("""
    CREATE FUNCTION take_time() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON job DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.state = 'running' AND NEW.claim = 1) EXECUTE FUNCTION take_time()""")


def ended(connection: Connection) -> bool:
    return not {"waiting", "running"}.intersection(kinds.states(connection))


async def test_what_a_commit_without_an_answer_has_claimed_is_begun_and_no_attempt_is_spent(
    one_server: OwnServer,
) -> None:
    """Nobody would, until its lease is over: and then one without retries is dead."""

    begun: list[int] = []

    @job(retries=0)
    async def once(context: JobContext) -> None:
        begun.append(context.attempt)

    direct = PlatformSettings(database_url=one_server.tcp_url)
    migrate(direct)
    with trio.fail_after(LIMIT):
        async with (
            open_proxy(one_server.port) as proxy,
            open_database(direct) as database,
            open_database(settings := PlatformSettings(database_url=proxy.url())) as proxied,
            open_jobs(proxied, (once,), settings, Metrics()),
        ):
            await database.run(lambda connection: connection.execute(_SLOW_CLAIMS))
            await database.run(enqueue, once)
            await until(database, commits, True)
            proxy.cut()
            await until(database, ended, True)

            assert await database.read(kinds.states) == {"done": 1}
    assert begun == [1]


async def test_what_a_commit_without_an_answer_has_claimed_is_handed_back_by_a_stop(one_server: OwnServer) -> None:
    """It comes behind the stop's first look, and the worker claims nothing by then."""
    direct = PlatformSettings(database_url=one_server.tcp_url)
    migrate(direct)
    with trio.fail_after(LIMIT):
        async with (
            open_proxy(one_server.port) as proxy,
            open_database(direct) as database,
            open_database(settings := PlatformSettings(database_url=proxy.url())) as proxied,
            open_jobs(proxied, (kinds.wait,), settings, Metrics()) as jobs,
        ):
            await database.run(lambda connection: connection.execute(_SLOW_CLAIMS))
            id_ = await database.run(enqueue, kinds.wait, number=1, seconds=50.0)
            await until(database, commits, True)
            proxy.cut()
            await jobs.stop(within=0.1)

            left = await database.read(operators.select_one, id_)
            assert (left["state"], left["claim"], left["failures"]) == ("waiting", 1, 0)


async def test_a_claim_that_arrives_while_everything_ends_ends_nothing_else(make_settings: MakeSettings) -> None:
    """Its COMMIT takes half a second, and what is committed is not cancelled: the worker has it when all is over."""

    with trio.CancelScope() as everything:
        async with world(make_settings) as (database, _):
            await database.run(slow_commits)
            await database.run(enqueue, kinds.note, number=1)
            await until(database, commits, True)
            everything.cancel()

    assert everything.cancelled_caught


async def test_failures_that_wait_for_what_is_enqueued_under_their_keys_keep_no_lease_from_being_extended(
    make_settings: MakeSettings, writable_database_url: str
) -> None:
    """They are written over the connections that leases are extended by, and wait for as long as another's unit."""
    fails = trio.Event()

    @job()
    async def stumble(context: JobContext) -> None:
        await fails.wait()
        raise RuntimeError("no")

    def lease(connection: Connection) -> float:
        query = text("SELECT CAST(EXTRACT(epoch FROM leased_until - clock_timestamp()) AS float8) FROM job WHERE"
                     " kind = 'wait' AND claim = 1 AND state = 'running'")  # fmt: skip
        return connection.execute(query).scalar() or 0.0

    keys = [f"key {number}" for number in range(9)]
    async with world(make_settings, stumble, kinds.wait, concurrency=10) as (database, _):
        await database.run(enqueue, kinds.wait, number=1, seconds=50.0)
        for key in keys:
            await database.run(enqueue, stumble.with_options(key=key))
        await until(database, kinds.states, {"running": 10})
        with psycopg.connect(writable_database_url.replace("+psycopg", "")) as unit:
            unit.cursor().executemany(
                "INSERT INTO job (kind, arguments, key) VALUES ('stumble', '{}', %s)", [(key,) for key in keys]
            )
            fails.set()
            with trio.move_on_after(LEASE + 1):
                while await database.read(lease) > 0:
                    await trio.sleep(0.05)
                pytest.fail("its lease is over")
            unit.commit()
        await until(database, stumbled, 9)


def stumbled(connection: Connection) -> int:
    query = "SELECT count(*) FROM job WHERE kind = 'stumble' AND state = 'done'"
    return int(connection.execute(text(query)).scalar_one())


async def test_a_worker_that_is_full_rescues_what_another_has_lost(make_settings: MakeSettings) -> None:
    looked = trio.Event()

    def note_look(unit: str, *_: object) -> None:
        if unit == "look":
            looked.set()

    settings = make_settings(jobs_concurrency=1)
    async with open_database(settings, on_unit=note_look) as database:
        await database.run(kinds.create_tables)
        async with open_jobs(database, (kinds.wait,), settings, Metrics()):
            await database.run(enqueue, kinds.wait, number=1, seconds=0.5)
            await until(database, kinds.states, {"done": 1})  # it is slow, so no other is claimed ahead
            for number in range(3):
                await database.run(enqueue, kinds.wait, number=number, seconds=50.0)
            await until(database, kinds.states, {"done": 1, "running": 1, "waiting": 2})
            looked = trio.Event()
            with trio.fail_after(LIMIT):
                await looked.wait()
            await database.run(enqueue, kinds.note, number=9)
            lease = IDLE + 1  # it is over between the two looks after the next
            (lost,) = await database.run(store.claim, (kinds.note,), most=1, worker="gone", lease=lease)
            begun = trio.current_time()
            with trio.fail_after(LIMIT):
                while (await database.read(operators.select_one, lost.id))["state"] == "running":
                    await trio.sleep(0.05)

    print(f"rescued {trio.current_time() - begun - lease:.2f} s after the lease")
    assert trio.current_time() - begun < lease + IDLE / 2


async def test_what_waits_too_long_for_a_slot_is_handed_back_and_held_no_more(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    def claimed_again(connection: Connection) -> bool:
        query = "SELECT bool_and(claim > 1 AND failures = 0) FROM job WHERE kind = 'tell'"
        return bool(connection.execute(text(query)).scalar())

    async with world(make_settings, concurrency=1) as (database, jobs):
        await database.run(enqueue_many, kinds.tell, [{"number": number} for number in range(100)])
        await until(database, kinds.states, {"done": 100})  # they are quick, so others are claimed ahead
        with_long = [{"number": 1, "seconds": 50.0}]
        await database.run(enqueue_many, kinds.wait.with_options(priority="high"), with_long)
        await database.run(enqueue_many, kinds.tell, [{"number": 1}])
        await until(database, kinds.states, {"done": 100, "running": 2})
        await database.run(lambda connection: connection.execute(text("DELETE FROM job WHERE state = 'done'")))
        await until(database, claimed_again, True)
        await jobs.stop(within=0)

        assert await database.read(kinds.states) == {"waiting": 2}
    assert "jobs not handed back" not in capsys.readouterr().out


async def test_what_a_job_leaves_in_its_context_is_gone_for_the_next(make_settings: MakeSettings) -> None:
    seen: list[str] = []

    @job()
    async def leave(context: JobContext, *, number: int) -> None:
        seen.append(left.get())
        left.set(f"by {number}")

    async with world(make_settings, leave, concurrency=1) as (database, _):
        await database.run(enqueue_many, leave, [{"number": number} for number in range(5)])
        await until(database, kinds.states, {"done": 5})

    assert seen == ["nothing"] * 5


async def away(context: JobContext) -> None:
    raise PeerAway("the mailer has not answered within 5 s")


async def away_in_a_nursery(context: JobContext) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(away, context)


def mistaken(connection: Connection) -> None:
    connection.execute(text("SELECT totl FROM effect"))


def too_slow(connection: Connection) -> None:
    connection.execute(text("SET LOCAL statement_timeout = 50"))
    connection.execute(text("SELECT pg_sleep(50)"))


def idles(connection: Connection) -> None:
    connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 50"))
    ended = connection.connection.driver_connection
    assert ended is not None
    select.select([ended.fileno()], [], [], 60)  # the server has spoken its last words
    connection.execute(text("SELECT 1"))


async def endless(context: JobContext) -> None:
    await trio.sleep_forever()


class Speechless(Exception):
    def __str__(self) -> str:
        raise LookupError("no words")


async def fails_without_words(context: JobContext) -> None:
    raise Speechless


async def fails_in_half_a_pair(context: JobContext) -> None:
    raise ValueError("a file called \udcff")


def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


@decorated
async def hidden(context: JobContext) -> None:
    raise RuntimeError("nobody awaits this")


async def exits(context: JobContext) -> None:
    raise SystemExit(3)


async def exits_in_a_nursery(context: JobContext) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(exits, context)
        await trio.sleep_forever()


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (away, "PeerAway: the mailer has not answered within 5 s"),
        (away_in_a_nursery, "PeerAway: the mailer has not answered within 5 s"),
        (mistaken, 'column "totl" does not exist'),
        (too_slow, "SQLSTATE 57014"),
        (idles, "SQLSTATE 25P03"),
        (fails_without_words, "Speechless: its text cannot be made: LookupError"),
        (fails_in_half_a_pair, r"ValueError: a file called \udcff"),
        (hidden, "job hidden: returned a coroutine, which nobody awaits: what decorates it must be async too"),
        (exits, "SystemExit: 3"),
        (exits_in_a_nursery, "SystemExit: 3"),
        (endless, "the deadline of 0.5 s is over"),
    ],
)
async def test_what_the_job_itself_meets_spends_its_attempts_and_is_told(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str], function: Callable[..., Any], said: str
) -> None:
    def dead(connection: Connection) -> list[str]:
        return list(connection.execute(text("SELECT error FROM job WHERE state = 'dead'")).scalars())

    if function is fails_in_half_a_pair:
        configure_logs("info", "json")  # as a service has it: pytest's own stream refuses that text
    kind = job(retries=0, deadline=0.5)(function)
    async with world(make_settings, kind) as (database, _):
        await database.run(enqueue, kind)
        with trio.fail_after(10):
            while not (errors := await database.read(dead)):
                await trio.sleep(0.02)

    assert [said in error for error in errors] == [True], errors
    if function is mistaken:  # its refusal is in the log already, and the stack at debug
        assert "Traceback" not in capsys.readouterr().out.partition("job dead")[2]


@job()
async def say(context: JobContext) -> None:
    structlog.get_logger().info("said")


@job()
def say_in_a_unit(connection: Connection) -> None:
    structlog.get_logger().info("said")


@pytest.mark.parametrize("kind", [say, say_in_a_unit], ids=lambda kind: kind.name)
async def test_what_is_logged_while_a_job_runs_names_it_and_nothing_else_does(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str], kind: Job[[]]
) -> None:
    configure_logs("info", "json")
    async with world(make_settings, kind, kinds.fail, concurrency=1) as (database, _):
        ids = [await database.run(enqueue, kind) for _ in range(2)]
        await until(database, kinds.states, {"done": 2})
        await database.run(enqueue, kinds.fail, number=1)
        await until(database, kinds.states, {"done": 2, "dead": 1})

    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    said = [(line["job"], line["job_id"]) for line in lines if line["event"] == "said"]
    assert said == [(kind.name, each) for each in ids]
    assert {line["event"] for line in lines if {"job", "job_id"} & line.keys()} == {"said"}


@job(retries=0)
async def quotes_an_answer(context: JobContext) -> None:
    """Fail as a call does whose error holds all that the other side has sent."""
    raise ValueError("<p>an answer</p>\n" * 100_000)


@job(retries=0)
async def quotes_many(context: JobContext) -> None:
    raise ExceptionGroup("many", [ValueError("x" * 500) for _ in range(1_000)])


@pytest.mark.parametrize("kind", [quotes_an_answer, quotes_many], ids=lambda kind: kind.name)
async def test_an_error_of_any_length_is_a_short_line(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str], kind: Job[[]]
) -> None:
    configure_logs("info", "json")
    async with world(make_settings, kind) as (database, _):
        await database.run(enqueue, kind)
        await until(database, kinds.states, {"dead": 1})

    [line] = [line for line in capsys.readouterr().err.splitlines() if '"job dead"' in line]
    assert "ValueError: " in line
    assert len(line) < 60_000


async def test_an_async_job_that_was_taken_from_its_worker_is_counted_and_told(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    """As when its process was frozen for longer than its lease, just before the job returned."""

    def rescue(connection: Connection) -> None:
        connection.execute(text("UPDATE job SET leased_until = now() - interval '1 second'"))
        store.rescue(connection, {"frozen": 1}, lease=0.01)

    @job(retries=1)
    async def frozen(context: JobContext) -> None:
        if context.attempt == 1:
            await context.database.run(rescue)

    settings, metrics = make_settings(), Metrics()
    with trio.fail_after(LIMIT):
        async with open_database(settings) as database, open_jobs(database, (frozen,), settings, metrics):
            await database.run(enqueue, frozen)
            await until(database, kinds.states, {"done": 1})

    assert b'jobs_lost_total{kind="frozen"} 1.0' in metrics.text()
    assert capsys.readouterr().out.count("job lost") == 1


async def test_a_sql_job_that_was_taken_from_its_worker_leaves_nothing_and_is_told(
    make_settings: MakeSettings, writable_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its writes and its end are one transaction, which finds that the claim is over."""
    runs: list[int] = []

    @job(retries=1)
    def frozen(connection: Connection) -> None:
        runs.append(len(runs) + 1)
        kinds._note(connection, number=runs[-1])
        if runs == [1]:
            with create_engine(writable_database_url, poolclass=NullPool).begin() as other:
                other.execute(text("UPDATE job SET leased_until = now() - interval '1 second'"))
                store.rescue(other, {"frozen": 1}, lease=0.01)

    settings, metrics = make_settings(), Metrics()
    with trio.fail_after(LIMIT):
        async with open_database(settings) as database:
            await database.run(kinds.create_tables)
            async with open_jobs(database, (frozen,), settings, metrics):
                await database.run(enqueue, frozen)
                await until(database, kinds.states, {"done": 1})
            assert await database.read(kinds.effects) == [2]

    assert b'jobs_lost_total{kind="frozen"} 1.0' in metrics.text()
    assert capsys.readouterr().out.count("job lost") == 1


async def test_a_job_that_cannot_be_cancelled_is_told_once_and_counted(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    go_on = trio.Event()

    @job(retries=0, deadline=0.1)
    async def shielded(context: JobContext) -> None:
        with trio.CancelScope(shield=True):
            await go_on.wait()

    settings, metrics = make_settings(), Metrics()
    with trio.fail_after(LIMIT):
        async with open_database(settings) as database, open_jobs(database, (shielded,), settings, metrics):
            await database.run(enqueue, shielded)
            while b'jobs_overdue{kind="shielded"} 1.0' not in metrics.text():
                await trio.sleep(0.05)
            await trio.sleep(2 * BEAT)
            go_on.set()
            await until(database, kinds.states, {"done": 1})
            after = metrics.text()

    assert capsys.readouterr().out.count("job does not end") == 1
    assert b'jobs_overdue{kind="shielded"}' not in after


async def test_a_sql_job_may_begin_with_an_isolation_of_its_own(make_settings: MakeSettings) -> None:
    @job(retries=0, deadline=60)
    def strict(connection: Connection) -> None:
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
        assert connection.execute(text("SHOW statement_timeout")).scalar() == "1min"

    async with world(make_settings, strict) as (database, _):
        await database.run(enqueue, strict)
        await until(database, kinds.states, {"done": 1})


async def test_a_lock_of_somebody_else_spends_no_attempt_and_is_told(make_settings: MakeSettings) -> None:
    def seen(connection: Connection) -> tuple[int, bool]:
        row = connection.execute(text("SELECT failures, error FROM job")).one()
        return row.failures, "55P03" in (row.error or "")

    @job(retries=0)
    def locked(connection: Connection) -> None:
        connection.execute(text("SET LOCAL lock_timeout = 50"))
        connection.execute(text("SELECT pg_advisory_xact_lock(7)"))

    async with world(make_settings, locked) as (database, _):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.run, hold_lock)
            await until(database, holds_lock, True)
            await database.run(enqueue, locked)
            await until(database, seen, (0, True))
            nursery.cancel_scope.cancel()
        await until(database, kinds.states, {"done": 1})


def hold_lock(connection: Connection) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(7), pg_sleep(50)"))


def holds_lock(connection: Connection) -> bool:
    query = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7 AND granted)"
    return bool(connection.execute(text(query)).scalar())


@job(retries=0)
def end_connection(connection: Connection) -> None:
    connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


async def test_a_job_that_ends_its_connection_does_not_do_so_for_ever(make_settings: MakeSettings) -> None:
    """One that crashes PostgreSQL each time would do so each second, and nobody else could work."""
    async with world(make_settings, end_connection) as (database, _):
        id_ = await database.run(enqueue, end_connection)
        await until(database, kinds.states, {"dead": 1})
        row = await database.read(operators.select_one, id_)

    assert (row["claim"], row["failures"]) == (TOLERATED + 1, 1)


async def test_a_job_that_finds_no_connection_free_spends_no_attempt_however_long_that_lasts(
    make_settings: MakeSettings,
) -> None:
    left = TOLERATED + 2

    @job(retries=0)
    async def crowded_out(_: JobContext) -> None:
        nonlocal left
        left -= 1
        if left:
            raise Busy("all 5 database connections are in use")

    async with world(make_settings, crowded_out) as (database, _):
        await database.run(enqueue, crowded_out)
        await until(database, kinds.states, {"done": 1})

    assert left == 0


async def test_a_job_that_the_server_has_no_connection_for_spends_no_attempt_however_long_that_lasts(
    one_server: OwnServer,
) -> None:
    left = TOLERATED + 2

    @job(retries=0)
    async def shut_out(_: JobContext) -> None:
        nonlocal left
        left -= 1
        if left:
            await shut.run(hold_lock)

    settings = PlatformSettings(database_url=one_server.tcp_url)
    migrate(settings)
    limited = PlatformSettings(database_url=one_server.tcp_url.replace("postgres@", "app@"))
    with trio.fail_after(LIMIT):
        async with (
            open_database(settings) as database,
            open_database(limited) as shut,
            open_jobs(database, (shut_out,), settings, Metrics()),
        ):
            await database.run(lambda connection: connection.execute(text("CREATE ROLE app LOGIN CONNECTION LIMIT 0")))
            await database.run(enqueue, shut_out)
            await until(database, ended, True)

            assert await database.read(kinds.states) == {"done": 1}
    assert left == 0


async def test_a_repeat_begins_when_its_pause_is_over(make_settings: MakeSettings) -> None:
    """And not with the next look at the table, which is up to IDLE seconds later."""
    begun: list[float] = []

    @job(retries=1)
    async def fail(_: JobContext) -> None:
        begun.append(trio.current_time())
        raise RuntimeError

    async with world(make_settings, fail) as (database, _):
        await database.run(enqueue, fail)
        await until(database, kinds.states, {"dead": 1})

    assert begun[1] - begun[0] < 0.7 * IDLE


async def test_of_a_limited_kind_the_next_begins_as_soon_as_one_has_ended(make_settings: MakeSettings) -> None:
    """Were the next to begin only when the table is looked at again, so many would take longer than a minute."""
    one_at_a_time = job(name="one_at_a_time", concurrency=1)(kinds.note.function)
    many = [{"number": number} for number in range(MANY)]
    async with world(make_settings, one_at_a_time) as (database, _):
        await database.run(enqueue_many, one_at_a_time, many)
        await until(database, kinds.states, {"done": MANY})


async def test_what_is_due_in_a_moment_begins_then(make_settings: MakeSettings) -> None:
    """And not with the next look at the table, as for a repeat; whether it is told by seconds or by a moment."""
    begun: list[float] = []

    @job()
    async def note_time(_: JobContext) -> None:
        begun.append(trio.current_time())

    async with world(make_settings, note_time) as (database, _):
        await database.run(enqueue, note_time)
        await until(database, kinds.states, {"done": 1})
        await database.run(enqueue, note_time.with_options(delay=0.3))
        await database.run(enqueue_many, note_time.with_options(at=datetime.now(UTC) + timedelta(seconds=0.3)), [{}])
        await until(database, kinds.states, {"done": 3})

    assert max(begun) - begun[0] < 0.6 * IDLE


async def test_what_is_due_in_a_moment_begins_then_though_nobody_was_told(make_settings: MakeSettings) -> None:
    """Who has told while the worker did not listen is not heard; that it may have been is."""
    begun: list[float] = []

    @job()
    async def note_time(_: JobContext) -> None:
        begun.append(trio.current_time())

    def cut_off(connection: Connection) -> None:
        insert(connection, note_time.with_options(delay=0.5), "{}", None)
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
                 " AND datname = current_database()")
        )  # fmt: skip

    async with world(make_settings, note_time) as (database, _):
        await database.run(enqueue, note_time)
        await until(database, kinds.states, {"done": 1})
        await database.run(cut_off)
        await until(database, kinds.states, {"done": 2})

    assert begun[1] - begun[0] < 0.6 * IDLE


async def test_arguments_of_another_release_are_tried_again_also_without_retries(make_settings: MakeSettings) -> None:
    def seen(connection: Connection) -> tuple[str, int]:
        return tuple(connection.execute(text("SELECT state, failures FROM job")).one())

    @job(retries=0, name="note")
    def newer(connection: Connection, *, number: int, why: str) -> None: ...

    @job(retries=0, name="note")
    def older(connection: Connection, *, number: int) -> None: ...

    async with world(make_settings, older) as (database, _):
        await database.run(enqueue, newer, number=1, why="the newer release says so")
        await until(database, seen, ("waiting", 1))


async def test_a_job_that_enqueues_what_another_does_not_take_is_not_repeated_without_retries(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its own arguments have fitted, and it has begun: only what was never begun is for another release."""

    @job(retries=0)
    async def pass_on(context: JobContext, *, number: int) -> None:
        await context.database.run(kinds._note, number=number)
        await context.database.run(enqueue, kinds.note, number=number, how="\0")

    async with world(make_settings, pass_on) as (database, _):
        await database.run(enqueue, pass_on, number=1)
        await until(database, lambda connection: kinds.states(connection).keys() - {"running"}, {"dead"})

        assert await database.read(kinds.effects) == [1]
    assert "Traceback" in capsys.readouterr().out


async def test_jobs_that_no_feature_names_are_counted_and_told(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, metrics = make_settings(), Metrics()
    with trio.fail_after(LIMIT):
        async with open_database(settings) as database:
            await database.run(enqueue_many, kinds.note, [{"number": number} for number in range(2)])
            async with open_jobs(database, (), settings, metrics):
                while b'jobs_waiting{kind="note"} 2.0' not in metrics.text():
                    await trio.sleep(0.02)

    said = [
        line for line in capsys.readouterr().out.splitlines() if "jobs wait that this release does not know" in line
    ]
    assert len(said) == 1, said
    assert "note" in said[0]


@job(every=86_400)
def nightly(connection: Connection) -> None: ...


async def test_who_runs_no_jobs_shows_which_schedule_has_missed_its_turns(make_settings: MakeSettings) -> None:
    settings, metrics = make_settings(jobs_concurrency=0), Metrics()
    with trio.fail_after(LIMIT):
        async with open_database(settings) as database:
            await database.run(take_turn, nightly, datetime.now(UTC) - timedelta(days=3), age=60)
            async with open_jobs(database, (nightly,), settings, metrics):
                while b'jobs_turn_missed_seconds{kind="nightly"} ' not in metrics.text():
                    await trio.sleep(0.02)

    [missed] = re.findall(rb'jobs_turn_missed_seconds{kind="nightly"} (\S+)', metrics.text())
    assert float(missed) > 86_400


async def test_arguments_that_do_not_fit_are_one_line(
    make_settings: MakeSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    async with world(make_settings) as (database, _):
        await database.run(enqueue, kinds.note, number=1)
        await until(database, kinds.states, {"done": 1})
        stale = "UPDATE job SET arguments = '{\"nummer\": 1}', state = 'waiting', finished_at = NULL, failures = 8"
        await database.run(lambda connection: connection.execute(text(stale)))
        await database.run(enqueue, kinds.tell, number=2)  # wakes the worker
        await until(database, kinds.states, {"dead": 1, "done": 1})

    said = capsys.readouterr().out
    assert "job note: number: Field required" in said
    assert "Traceback" not in said
