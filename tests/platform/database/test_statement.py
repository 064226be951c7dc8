"""A statement that is a unit of its own, without a thread: what `run` and `read` guarantee holds for it too.

What is the same for both, around COMMIT, is in test_cancel.py, test_faults.py and test_standby.py; see units.WAYS.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import trio
from sqlalchemy import Connection

from service.platform.database import Database, Outcome, Statement, open_database
from service.platform.errors import DatabaseAway, DatabaseIncomplete, DatabaseUnable
from service.platform.settings import PlatformSettings
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.observer import OTHERS, observe
from tests.platform.database.proxy import open_proxy
from tests.platform.database.units import (
    INSERT,
    INSERT_AND_SLEEP,
    WAYS,
    Store,
    count,
    create_table,
    insert,
    select_numbers,
    select_one,
    sleep,
)

ONE = Statement("one", "SELECT 1")
NUMBERS = Statement("numbers", "SELECT number FROM numbers")
SLEEP = Statement("sleep", "SELECT pg_sleep($1)")
ITS_PROCESS = Statement("its_process", "SELECT pg_backend_pid()")

type Ask = Callable[..., Awaitable[list[tuple[Any, ...]]]]
both = pytest.mark.parametrize("ask", [Database.execute, Database.fetch])


async def test_its_rows_are_returned_once_it_is_committed(make_settings: MakeSettings) -> None:
    typed = Statement("typed", "SELECT $1::bigint, $2::text, $3::timestamptz, $4::float8, $5::boolean, $6::text[]")
    values = 2**40, "é\u2028𝄞\\'%s", datetime(2026, 1, 2, 3, 4, 5, 6, UTC), 0.1, None, ["a", "b,c"]
    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            await database.run(create_table)

            assert await database.execute(INSERT, 7) == [(7,)]
            assert await database.execute(Statement("none", "DELETE FROM numbers WHERE false")) == []
            assert await database.execute(typed, *values) == [values]
            assert await database.fetch(typed, *values) == [values]
            assert await database.fetch(NUMBERS) == [(7,)]
            assert database.statistics().units[Outcome.COMMITTED] == 4
            assert database.statistics().units[Outcome.READ] == 2


@pytest.mark.parametrize(("ask", "trips"), [(Database.execute, 2), (Database.fetch, 1)])
async def test_it_takes_no_thread_and_few_round_trips(own_server: OwnServer, ask: Ask, trips: int) -> None:
    with trio.fail_after(25):
        async with (
            open_proxy(own_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
        ):
            await ask(database, ONE)
            before, threads = proxy.said, threading.active_count()
            for _ in range(10):
                await ask(database, ONE)

            assert 10 * trips <= proxy.said - before < 10 * trips + 10, "the watch has its look meanwhile"
            assert threading.active_count() == threads


async def test_what_is_made_of_its_rows_is_made_before_it_is_committed(make_settings: MakeSettings) -> None:
    def refuse(rows: list[tuple[Any, ...]]) -> None:
        raise LookupError(f"not {rows}")

    with trio.fail_after(25):
        async with open_database(make_settings(database_connections=1)) as database:
            await database.run(create_table)
            process = await database.execute(ITS_PROCESS)
            with pytest.raises(LookupError, match="not"):
                await database.execute(INSERT, 1, before_commit=refuse)

            assert await database.fetch(NUMBERS) == []
            assert await database.execute(INSERT, 2, before_commit=len) == 1
            assert await database.fetch(NUMBERS) == [(2,)]
            assert await database.execute(ITS_PROCESS) == process
            after = database.statistics()
            assert (after.units[Outcome.FAILED], after.connections_idle) == (1, 1)


async def test_a_refused_one_is_not_committed_and_its_connection_stays(make_settings: MakeSettings) -> None:
    with trio.fail_after(25):
        async with open_database(make_settings(database_connections=1)) as database:
            await database.run(create_table)
            process = await database.execute(ITS_PROCESS)
            await database.execute(INSERT, 1)
            for _ in range(2):  # the first time it is prepared there, and that stays
                with pytest.raises(psycopg.errors.UniqueViolation):
                    await database.execute(INSERT_AND_SLEEP, 1, 0)
            with pytest.raises(psycopg.DataError):
                await database.execute(Statement("nul", "SELECT $1::text"), "\0")
            with pytest.raises(psycopg.DataError):  # it has no word in Python: read before COMMIT
                await database.execute(Statement("far", "INSERT INTO numbers VALUES (2) RETURNING 'infinity'::date"))

            assert await database.execute(ITS_PROCESS) == process
            assert await database.read(select_numbers) == {1}


async def test_what_is_wrong_with_the_database_is_told_as_of_any_unit(make_settings: MakeSettings) -> None:
    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            with pytest.raises(DatabaseIncomplete):
                await database.execute(Statement("nowhere", "SELECT * FROM nowhere"))
            full = Statement("full", "DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$")
            with pytest.raises(DatabaseUnable, match="disk is full"):
                await database.execute(full)


async def test_a_deferred_constraint_that_fails_at_commit_is_an_ordinary_error(make_settings: MakeSettings) -> None:
    twin = "ALTER TABLE numbers ADD twin bigint REFERENCES numbers DEFERRABLE INITIALLY DEFERRED"
    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            await database.execute(Statement("alter", twin))
            with pytest.raises(psycopg.errors.ForeignKeyViolation):
                await database.execute(Statement("orphan", "INSERT INTO numbers VALUES (1, 99)"))

            assert await database.read(count) == 0
            assert database.statistics().units[Outcome.UNKNOWN] == 0
            assert database.statistics().connections_idle == 1


async def test_a_collision_is_retried(make_settings: MakeSettings) -> None:
    """The first one meets it, as the sequence is not rolled back."""
    collide = """
        CREATE SEQUENCE tries;
        CREATE FUNCTION collide() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tries') < 3 THEN RAISE EXCEPTION 'lost' USING ERRCODE = '40001'; END IF;
            RETURN currval('tries');
        END $$"""

    def create(connection: Connection) -> None:
        connection.exec_driver_sql(collide)

    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            await database.run(create)

            assert await database.execute(Statement("collide", "SELECT collide()")) == [(3,)]
            assert database.statistics().retried == 2


async def test_a_cancelled_one_is_gone_and_its_connection_stays(make_settings: MakeSettings, database_url: str) -> None:
    with trio.fail_after(25), observe(database_url) as observer:
        async with open_database(make_settings(database_connections=1)) as database:
            await database.run(create_table)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.execute, INSERT_AND_SLEEP, 1, 30)
                process = await observer.wait_running()
                nursery.cancel_scope.cancel()

            assert observer.running() is None
            assert observer.idle_in_transaction() == 0
            after = database.statistics()
            assert (after.connections_in_use, after.connections_idle, after.lines_cut) == (0, 1, 0)
            assert await database.execute(ITS_PROCESS) == [(process,)]
            assert await database.read(count) == 0


@pytest.mark.parametrize(("ask", "what"), [(Database.read, sleep), (Database.fetch, SLEEP)])
async def test_a_cancelled_read_is_gone_and_its_connection_stays(
    make_settings: MakeSettings, database_url: str, ask: Ask, what: object
) -> None:
    with trio.fail_after(25), observe(database_url) as observer:
        async with open_database(make_settings(database_connections=1)) as database:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, database, what, 30)
                process = await observer.wait_running()
                nursery.cancel_scope.cancel()

            assert observer.running() is None
            after = database.statistics()
            assert (after.connections_idle, after.lines_cut) == (1, 0)
            assert await database.fetch(ITS_PROCESS) == [(process,)]


@both
async def test_it_is_not_begun_in_a_cancelled_scope(make_settings: MakeSettings, ask: Ask) -> None:
    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            with trio.CancelScope() as scope:
                scope.cancel()
                await ask(database, ONE)

            assert scope.cancelled_caught
            assert database.statistics().connections_idle == 0, "not even a connection was made"


@both
async def test_a_frozen_backend_is_cut_off(own_server: OwnServer, ask: Ask) -> None:
    with trio.fail_after(25), observe(own_server.url) as observer:
        async with open_database(PlatformSettings(database_url=own_server.url)) as database:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, database, SLEEP, 30)
                frozen = await observer.wait_running()
                os.kill(frozen, signal.SIGSTOP)
                started = time.perf_counter()
                nursery.cancel_scope.cancel()
            lasted = time.perf_counter() - started
            os.kill(frozen, signal.SIGCONT)

            assert lasted < 5  # promised: 0.6, if it is quiet
            assert await ask(database, ONE) == [(1,)]
            after = database.statistics()
            assert (after.lines_cut, after.connections_in_use) == (1, 0)


@both
async def test_dead_pooled_connections_are_replaced_unseen(own_server: OwnServer, ask: Ask) -> None:
    with trio.fail_after(25), observe(own_server.url) as observer:
        async with open_database(PlatformSettings(database_url=own_server.url)) as database:
            await ask(database, ONE)
            observer.ask(f"SELECT count(pg_terminate_backend(pid, 1000)) {OTHERS}")

            assert await ask(database, ONE) == [(1,)]
            assert database.statistics().lines_replaced == 1


@both
async def test_a_connection_that_is_ended_before_it_reads_is_replaced_unseen(own_server: OwnServer, ask: Ask) -> None:
    """The server's last words are on their way when the packet goes out."""
    with trio.fail_after(25):
        async with open_database(PlatformSettings(database_url=own_server.url)) as database:
            [(process,)] = await database.execute(ITS_PROCESS)
            os.kill(process, signal.SIGSTOP)
            os.kill(process, signal.SIGTERM)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_one, ask, database)
                await trio.sleep(0.1)
                os.kill(process, signal.SIGCONT)

            assert database.statistics().lines_replaced == 1


async def expect_one(ask: Ask, database: Database) -> None:
    assert await ask(database, ONE) == [(1,)]


@pytest.mark.parametrize("forward", [True, False], ids=["after it was executed", "before"])
async def test_a_line_that_dies_before_commit_is_replaced_unseen(own_server: OwnServer, forward: bool) -> None:
    with trio.fail_after(25):
        async with (
            open_proxy(own_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
        ):
            await database.run(create_table)
            proxy.break_at(b"BEGIN", forward=forward)

            assert await database.execute(INSERT, 1) == [(1,)]
            assert await database.read(select_numbers) == {1}
            assert database.statistics().lines_replaced == 1


async def test_a_line_that_dies_while_it_is_read_by_is_replaced_unseen(own_server: OwnServer) -> None:
    with trio.fail_after(25):
        async with (
            open_proxy(own_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
        ):
            proxy.break_at(b"SELECT 1", forward=True)

            assert await database.fetch(ONE) == [(1,)]
            assert database.statistics().lines_replaced == 1


async def test_one_whose_server_process_is_ended_is_not_committed(own_server: OwnServer) -> None:
    async def expect_away(database: Database) -> None:
        with pytest.raises(DatabaseAway, match="nothing is committed") as caught:
            await database.execute(INSERT_AND_SLEEP, 1, 30)
        assert isinstance(caught.value.__cause__, psycopg.errors.AdminShutdown), "in the server's words"

    with trio.fail_after(25), observe(own_server.url) as observer:
        async with open_database(PlatformSettings(database_url=own_server.url)) as database:
            await database.run(create_table)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_away, database)
                observer.ask("SELECT pg_terminate_backend(%s)", await observer.wait_running())

            assert await database.read(count) == 0


@pytest.mark.parametrize("text", ["COMMIT", "rollback and chain", " ABORT"])
def test_a_text_that_ends_the_transaction_is_refused_before_it_is_used(text: str) -> None:
    with pytest.raises(ValueError, match="ends: a unit of work ends no transaction"):
        Statement("ends", text)


async def test_one_that_ends_its_transaction_all_the_same_is_not_taken_for_committed(
    make_settings: MakeSettings,
) -> None:
    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            with pytest.raises(RuntimeError, match="ends no transaction"):
                await database.execute(Statement("ends", "/* of somebody's own */ ROLLBACK"))

            assert await database.execute(ONE) == [(1,)]


async def test_more_values_than_the_protocol_has_room_for_leave_no_pipeline_behind(make_settings: MakeSettings) -> None:
    with trio.fail_after(25):
        async with open_database(make_settings(database_connections=1)) as database:
            with pytest.raises(psycopg.Error):
                await database.execute(ONE, *range(70_000))

            assert await database.run(select_one) == 1
            assert await database.execute(ONE) == [(1,)]


@pytest.mark.parametrize("text", ["BEGIN", "SELECT 1/0"])
async def test_a_reading_one_leaves_no_transaction_behind(make_settings: MakeSettings, text: str) -> None:
    with trio.fail_after(25):
        async with open_database(make_settings(database_connections=1)) as database:
            process = await database.fetch(ITS_PROCESS)
            with contextlib.suppress(psycopg.errors.DivisionByZero):
                await database.fetch(Statement("odd", text))

            assert await database.fetch(ITS_PROCESS) == process
            assert database.statistics().connections_idle == 1


async def test_a_reading_one_that_writes_fails_in_tests(make_settings: MakeSettings) -> None:
    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                await database.fetch(INSERT, 1)

            assert await database.fetch(NUMBERS) == []


async def test_a_standby_takes_none_that_writes_and_answers_those_that_read(one_server: OwnServer) -> None:
    with trio.fail_after(40):
        async with open_database(PlatformSettings(database_url=one_server.url)) as database:
            await database.run(create_table)
            one_server.become_standby()
            for _ in range(3):
                with pytest.raises(DatabaseUnable, match="is a standby, takes no writes"):
                    await database.execute(INSERT, 1)
                assert await database.fetch(NUMBERS) == []
            assert database.statistics().connections_idle <= 2
            one_server.promote()
            while True:
                try:
                    assert await database.execute(INSERT, 1) == [(1,)]
                    break
                except DatabaseUnable:
                    await trio.sleep(0.05)


@pytest.mark.parametrize("store", WAYS)
async def test_a_begin_that_is_refused_for_another_reason_is_not_taken_for_a_standbys(
    own_server: OwnServer, store: Store
) -> None:
    with trio.fail_after(25):
        async with (
            open_proxy(own_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
        ):
            await database.run(create_table)
            proxy.change(b"READ WRITE", b"READ WRONG")

            with pytest.raises(DatabaseIncomplete):  # a syntax error
                await store(database, 1)
            proxy.change(b"", b"")
            await store(database, 1)
            assert await database.read(count) == 1


async def test_what_a_server_that_takes_writes_does_not_support_is_not_taken_for_a_standbys_refusal(
    make_settings: MakeSettings,
) -> None:
    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            await database.run(create_table)

            with pytest.raises(DatabaseIncomplete):  # with the SQLSTATE of a standby that is to begin a transaction
                await database.execute(Statement("lock_none", "SELECT count(*) FROM numbers FOR UPDATE"))


def roll_back_to_a_savepoint(connection: Connection) -> None:
    """After which the driver has the server forget what is prepared, if it has prepared anything itself."""
    for number in range(10):
        insert(connection, number=number)
    connection.begin_nested().rollback()


def raise_after_inserts(connection: Connection) -> None:
    for number in range(10, 20):
        insert(connection, number=number)
    raise LookupError


@pytest.mark.parametrize("unit", [roll_back_to_a_savepoint, raise_after_inserts])
async def test_one_that_the_server_has_forgotten_is_prepared_anew_unseen(
    make_settings: MakeSettings, database_url: str, unit: Callable[[Connection], None]
) -> None:
    with trio.fail_after(25), observe(database_url):
        async with open_database(make_settings(database_connections=1)) as database:
            await database.run(create_table)
            process = await database.execute(ITS_PROCESS)
            for _ in range(2):
                with contextlib.suppress(LookupError):
                    await database.run(unit)
                assert await database.fetch(ITS_PROCESS) == process
                assert await database.execute(ITS_PROCESS) == process
                assert await database.execute(INSERT, 100) == [(100,)]
                await database.execute(Statement("delete", "DELETE FROM numbers"))

            assert database.statistics().lines_replaced == 0


@both
async def test_one_that_was_prepared_before_a_migration_is_prepared_anew_unseen(
    make_settings: MakeSettings, database_url: str, ask: Ask
) -> None:
    select = Statement("select", "SELECT * FROM numbers")
    with trio.fail_after(25), observe(database_url) as migration:
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            assert await ask(database, select) == []
            migration.connection.execute(b"ALTER TABLE numbers ADD name text")

            assert await ask(database, select) == []
            assert database.statistics().lines_replaced == 1


@both
@pytest.mark.parametrize("seconds", [0.0, 0.05, 60], ids=["cancelled at once", "cancelled soon", "left alone"])
async def test_values_of_many_megabytes_go_both_ways_and_may_be_cancelled(
    make_settings: MakeSettings, seconds: float, ask: Ask
) -> None:
    echo, text = Statement("echo", "SELECT $1::text"), "x" * (32 << 20)
    with trio.fail_after(60):
        async with open_database(make_settings(database_connections=1)) as database:
            await database.execute(ONE)
            with trio.move_on_after(seconds) as scope:
                assert await ask(database, echo, text) == [(text,)]

            assert scope.cancelled_caught == (seconds < 1)
            assert await database.execute(ONE) == [(1,)]
            assert database.statistics().connections_idle == 1
