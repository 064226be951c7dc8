"""Tasks that run for ever: what the database does to them is borne, told and over soon; a bug of theirs is not."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path

import psycopg
import pytest
import structlog.testing
import trio
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.database import Database, open_database
from service.platform.database.address import STATEMENT_MARGIN
from service.platform.database.background import LONGEST_PAUSE, PROBATION, SETTLE, Background, name_of
from service.platform.database.sqlstate import one_line, translate
from service.platform.errors import Busy, DatabaseAway, DatabaseIncomplete, DatabaseUnable, PeerAway, Unavailable
from service.platform.settings import PlatformSettings
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.observer import OTHERS, conninfo, observe
from tests.platform.database.units import count, create_table, insert, select_one

# One of each class of appendix A that a statement can meet, and what leaves the door; None: the driver's own error.
STATES = {
    "08006": DatabaseUnable, "0A000": DatabaseIncomplete, "22012": None, "23514": None, "25001": None,
    "26000": DatabaseIncomplete, "28000": DatabaseUnable, "34000": None, "3D000": DatabaseUnable,
    "3F000": DatabaseIncomplete, "40001": Busy, "42501": DatabaseIncomplete, "42703": DatabaseIncomplete,
    "42P01": DatabaseIncomplete, "53100": DatabaseUnable, "53200": DatabaseUnable, "53300": DatabaseUnable,
    "54000": None, "55006": DatabaseUnable, "55P03": DatabaseUnable, "57014": DatabaseUnable, "57P03": DatabaseUnable,
    "58030": DatabaseUnable, "F0000": DatabaseUnable, "P0001": None, "XX000": DatabaseUnable, "XX001": DatabaseUnable,
}  # fmt: skip
SOON = 5.0  # seconds that are promised from the end of the cause


def break_everything(connection: Connection) -> None:
    connection.execute(text("CREATE TABLE broken (state text)"))
    connection.execute(text("INSERT INTO broken SELECT unnest(CAST(:states AS text[]))"), {"states": list(STATES)})
    connection.execute(
        text("""
        CREATE FUNCTION meet(wanted text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            IF EXISTS (SELECT FROM broken WHERE state = wanted) THEN
                RAISE EXCEPTION 'planted' USING ERRCODE = wanted;
            END IF; END $$""")
    )


def mend_everything(connection: Connection) -> None:
    connection.execute(text("DELETE FROM broken"))


def meet(connection: Connection, state: str) -> None:
    connection.execute(text("SELECT meet(:state)"), {"state": state})


async def meet_again_and_again(database: Database, state: str, done: Callable[[str], object]) -> None:
    while True:
        await database.run(meet, state)
        done(state)
        await trio.sleep(0.2)


async def wait_until(condition: Callable[[], object], seconds: float = SOON) -> None:
    with trio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  the database has no event for it
            await trio.sleep(0.02)


async def test_tasks_bear_every_class_of_sqlstate_and_are_well_soon_after(make_settings: MakeSettings) -> None:
    done: set[str] = set()
    with structlog.testing.capture_logs() as logged, trio.fail_after(30):
        async with open_database(make_settings(database_queue_wait=5)) as database:
            await database.run(break_everything)
            async with trio.open_nursery() as nursery:
                for state in STATES:
                    nursery.start_soon(database.keep_running, meet_again_and_again, database, state, done.add)
                kinds = {state[:2] for state in STATES} - {"40"}
                await wait_until(lambda: kinds <= set(database.statistics().background_failures))
                await wait_until(lambda: database.failing_tasks)
                await trio.sleep(2)
                assert not done
                await database.run(mend_everything)
                await wait_until(lambda: done == set(STATES) and not database.failing_tasks)
                nursery.cancel_scope.cancel()

    failing = [line for line in logged if line["event"] == "background task failing"]
    assert len(failing) <= len(STATES), "one line each, however often it failed"
    assert len([line for line in logged if line["event"] == "refused by PostgreSQL"]) <= len(STATES)


async def test_a_request_is_told_whose_fault_it_is(make_settings: MakeSettings) -> None:
    left: dict[str, type[Exception] | None] = {}
    with structlog.testing.capture_logs(), trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(break_everything)
            for state in STATES:
                with pytest.raises((Unavailable, DBAPIError)) as caught:
                    await database.run(meet, state)
                left[state] = type(caught.value) if isinstance(caught.value, Unavailable) else None
                if isinstance(caught.value, Unavailable):
                    assert (caught.value.status, bool(caught.value.headers)) in {(503, True), (500, False)}
                assert await database.run(select_one) == 1

    assert left == STATES


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("53100", "PostgreSQL's disk is full"),
        ("53200", "PostgreSQL is short of a resource"),  # as its class has it
        ("57014", "the statement was cancelled, or took too long"),
        ("57P03", "an operator stopped it"),
        ("3D000", "PostgreSQL cannot serve this now"),
    ],
)
def test_what_the_database_lacks_is_said_in_words(state: str, words: str) -> None:
    error = translate(psycopg.errors.lookup(state)(), standby=False)

    assert str(error) == f"{words} (SQLSTATE {state}); nothing is committed"


async def test_who_bears_an_error_itself_is_shown_as_failing_too(make_settings: MakeSettings) -> None:
    async def bear(database: Database) -> None:
        while True:
            try:
                await database.run(meet, "42P01")
            except Unavailable:
                await trio.sleep(0.1)
            else:
                return

    with trio.fail_after(20):
        async with open_database(make_settings()) as database:
            await database.run(break_everything)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.keep_running, bear, database)
                await wait_until(lambda: database.failing_tasks)
                assert [*database.failing_tasks] == [name_of(bear)]
                await database.run(mend_everything)
            assert not database.failing_tasks


async def test_nobody_looks_whether_tasks_are_well_once_all_are(mock_clock: MockClock) -> None:
    mock_clock.rate = 20  # a look that never ends would let no time be jumped over
    background, runs = Background(), iter([DatabaseAway("away")])

    async def fail_once() -> None:
        for error in runs:
            raise error

    with trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(background.settle)
            await background.keep_running(fail_once, name="once")
            await trio.sleep(2 * SETTLE)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    assert background.failures.total() == 1


async def test_a_bug_ends_the_task_and_all_with_it(autojump_clock: MockClock) -> None:
    async def stumble() -> None:
        await trio.sleep(1)
        raise KeyError("a bug")

    async def stumble_beside() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stumble)
            await trio.sleep(1)
            raise DatabaseAway("away")

    with pytest.raises(KeyError):
        await Background().keep_running(stumble)
    with pytest.RaisesGroup(KeyError, flatten_subgroups=True):
        await Background().keep_running(stumble_beside)


@pytest.mark.parametrize("kind", [DatabaseAway, PeerAway])
async def test_an_error_of_a_task_beneath_is_borne_too_and_said_once(
    autojump_clock: MockClock, kind: type[Unavailable]
) -> None:
    runs: list[float] = []

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise kind("somebody is away")

    async def work() -> None:
        runs.append(trio.current_time())
        if trio.current_time() - runs[0] < 60:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(fail)

    background = Background()
    with structlog.testing.capture_logs() as logged:
        await background.keep_running(work)

    pauses = [later - sooner for sooner, later in pairwise(runs)]
    assert max(pauses) <= LONGEST_PAUSE < PROBATION
    assert [line["event"] for line in logged] == ["background task failing", "background task well again"]
    assert logged[0]["error"] == "somebody is away", "and nothing of PostgreSQL, unless it is that"
    assert background.failures[kind.__name__] == len(pauses)


async def test_terminated_and_cancelled_statements_are_borne(one_server: OwnServer) -> None:
    with trio.fail_after(30), observe(one_server.url) as observer:
        async with open_database(PlatformSettings(database_url=one_server.url)) as database:

            def wait_long(connection: Connection) -> None:
                connection.execute(text("SELECT pg_sleep(30)"))

            for end in ("pg_terminate_backend", "pg_cancel_backend"):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(database.keep_running, partial(database.run, wait_long))
                    pid = await observer.wait_running()
                    observer.ask(f"SELECT count({end}(pid)) {OTHERS} AND pid = %s", pid)
                    await wait_until(lambda: database.failing_tasks)
                    await observer.wait_running()
                    nursery.cancel_scope.cancel()


async def test_a_password_file_that_cannot_be_read_for_a_moment_is_an_outage(
    one_server: OwnServer, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xff\xfe\x00")
    settings = PlatformSettings(database_url=one_server.url, database_password_file=file)
    with structlog.testing.capture_logs() as logged, trio.fail_after(20):
        async with open_database(settings) as database, database.listen("room") as wakeups:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(anext, wakeups)
                for content, words in ((b"\xff", "is not UTF-8"), (b"a\0b", "NUL")):
                    file.write_bytes(content)
                    with pytest.raises(DatabaseAway):
                        await database.run(select_one)
                    assert words in (await database.look()).error
                file.write_bytes(b"right")
                await wait_until(lambda: database.condition.reachable)
            assert await database.run(select_one) == 1
            await wait_until(lambda: not database.failing_tasks)

    away = [line["error"] for line in logged if line["event"] == "database away"]
    assert len(away) == len(set(away)) == 2, "the first look, and each change of its text"


async def test_who_waits_for_a_lock_of_another_session_is_told_ahead_of_the_deadline(one_server: OwnServer) -> None:
    settings = PlatformSettings(database_url=one_server.url, request_deadline=4)
    with trio.fail_after(30), psycopg.connect(conninfo(one_server.url)) as holder:
        async with open_database(settings) as database, trio.open_nursery() as nursery:
            await database.run(create_table)
            holder.execute("LOCK TABLE numbers")
            begun = trio.current_time()
            nursery.start_soon(database.keep_running, partial(database.read, count))
            with trio.fail_after(settings.request_deadline), pytest.raises(DatabaseUnable) as caught:
                await database.run(insert, number=1)
            await wait_until(lambda: database.failing_tasks)
            noticed = trio.current_time() - begun
            seen = await database.look()
            holder.rollback()
            await wait_until(lambda: not database.failing_tasks)
            await database.run(insert, number=1)

    assert caught.value.sqlstate == "55P03"
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
    assert noticed < settings.request_deadline + STATEMENT_MARGIN, "ahead of the statement's own ceiling"
    assert seen.reachable, "nothing else shows it"


def test_what_is_behind_an_error_is_told_where_it_has_words() -> None:
    for behind, line in {"no room": "away: no room", "": "away"}.items():
        error = DatabaseAway("away")
        error.__cause__ = trio.TooSlowError(behind)
        assert one_line(error) == line
