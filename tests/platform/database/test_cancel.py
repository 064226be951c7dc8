"""A cancel ends the query on the server, wherever the unit stands, and nothing else."""

import statistics
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg
import pytest
import trio
import trio.testing
from sqlalchemy import Connection

from service.platform.database import Database, Outcome, Statement, open_database
from service.platform.database.statistics import Cancelled
from service.platform.errors import OutcomeUnknown
from service.platform.settings import PlatformSettings
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.observer import OTHERS, Observer, observe
from tests.platform.database.proxy import Proxy, open_proxy
from tests.platform.database.units import (
    WAYS,
    Store,
    count,
    create_table,
    insert,
    insert_and_sleep,
    make_commits_slow,
    make_commits_wait,
    select_numbers,
    select_one,
    sleep,
)

# How often, and at most which median and p99 in seconds. Beside other work: by the cancel, not by the cut that would
# follow after half a second. Alone: what is promised.
BOUNDS = [(50, 0.4, 10.0), pytest.param((200, 0.010, 0.025), marks=pytest.mark.drill)]


@pytest.mark.parametrize("most", BOUNDS, ids=str)
async def test_a_cancelled_query_is_gone_within_milliseconds(
    own_server: OwnServer, most: tuple[int, float, float]
) -> None:
    times, *bounds = most
    lasted: list[float] = []
    free: list[float] = []
    with trio.fail_after(60), observe(own_server.url) as observer:
        async with open_database(PlatformSettings(database_url=own_server.url, database_connections=1)) as database:
            for _ in range(times):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(database.run, sleep, 30)
                    await observer.wait_running()
                    started = time.perf_counter()
                    nursery.cancel_scope.cancel()
                    nursery.start_soon(record_when_gone, observer, started, lasted)
                free.append(time.perf_counter() - started)

            assert await database.read(select_one) == 1
    median, p99 = statistics.median(lasted), statistics.quantiles(lasted, n=100)[98]
    print(f"cancel to gone, of {times}: median {median * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms")
    print(f"cancel to the caller's return: median {statistics.median(free) * 1000:.1f} ms")
    assert median < bounds[0]
    assert p99 < bounds[1]


async def record_when_gone(observer: Observer, started: float, lasted: list[float]) -> None:
    with trio.CancelScope(shield=True):
        await observer.wait_gone()
    lasted.append(time.perf_counter() - started)


async def test_a_cancelled_unit_is_over_when_the_cancel_is_delivered(
    make_settings: MakeSettings, database_url: str
) -> None:
    """Not committed, gone from the server, no slot held, the connection back and healthy."""
    with trio.fail_after(25), observe(database_url) as observer:
        async with open_database(make_settings(database_connections=1)) as database:
            await database.run(create_table)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: database.run(insert_and_sleep, number=1, seconds=30))
                await observer.wait_running()
                nursery.cancel_scope.cancel()

            assert observer.running() is None
            assert observer.idle_in_transaction() == 0
            after = database.statistics()
            assert (after.connections_in_use, after.connections_idle, after.lines_cut) == (0, 1, 0)
            assert after.cancels == {Cancelled.STOPPED: 1, Cancelled.TOO_LATE: 0, Cancelled.CUT: 0}
            assert await database.read(count) == 0


async def test_a_unit_is_not_begun_in_a_cancelled_scope(make_settings: MakeSettings) -> None:
    ran: list[object] = []
    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            with trio.CancelScope() as scope:
                scope.cancel()
                await database.run(ran.append)

            assert scope.cancelled_caught
            assert ran == []
            assert database.statistics().connections_idle == 0, "not even a connection was made"


async def test_a_unit_cancelled_while_it_waits_for_a_slot_leaves_the_queue(make_settings: MakeSettings) -> None:
    with trio.fail_after(25):
        async with open_database(make_settings(database_connections=1, database_queue_wait=5)) as database:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.run, sleep, 0.3)
                await wait_until(lambda: database.statistics().connections_in_use == 1)
                with trio.move_on_after(0.05) as scope:
                    await database.run(sleep, 0)

                assert scope.cancelled_caught
                assert database.statistics().waiting == 0
            assert database.statistics().connections_in_use == 0


async def test_a_connection_whose_unit_was_cancelled_while_connecting_serves_the_next(
    make_settings: MakeSettings, database_url: str
) -> None:
    with trio.fail_after(25), observe(database_url) as observer:
        async with open_database(make_settings(database_connections=1)) as database:
            await database.look()  # the watch has its own line by now
            for _ in range(20):
                with trio.move_on_after(0.0001):
                    await database.run(select_one)
            await database.run(select_one)

            assert database.statistics().connections_in_use == 0
            assert observer.sessions() == 2, "the watch's and one other"


async def test_a_cancel_between_two_statements_stops_the_unit_before_the_second(make_settings: MakeSettings) -> None:
    reached, second = threading.Event(), []

    def two_statements(connection: Connection) -> None:
        insert(connection, number=1)
        reached.set()
        time.sleep(0.2)
        insert(connection, number=2)
        second.append(2)

    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.run, two_statements)
                await wait_until(reached.is_set)
                nursery.cancel_scope.cancel()

            assert second == []
            assert database.statistics().connections_idle == 1, "the same line, healthy"
            assert await database.read(count) == 0


async def test_a_unit_that_swallows_its_cancellation_is_not_committed(
    make_settings: MakeSettings, database_url: str
) -> None:
    def stubborn(connection: Connection) -> str:
        insert(connection, number=1)
        try:
            sleep(connection, 30)
        except Exception:
            return "went on"
        return "slept"

    with trio.fail_after(25), observe(database_url) as observer:
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.run, stubborn)
                await observer.wait_running()
                nursery.cancel_scope.cancel()

            assert database.statistics().units[Outcome.CANCELLED] == 1
            assert await database.read(count) == 0


async def test_a_cancel_reaches_a_query_of_the_driver_itself(make_settings: MakeSettings, database_url: str) -> None:
    def past_sqlalchemy(connection: Connection) -> None:
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        driver.execute("SELECT pg_sleep(30)")

    with trio.fail_after(25), observe(database_url) as observer:
        async with open_database(make_settings()) as database, trio.open_nursery() as nursery:
            nursery.start_soon(database.run, past_sqlalchemy)
            await observer.wait_running()
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("store", WAYS)
async def test_a_cancel_that_comes_after_commit_has_begun_returns_the_value(
    make_settings: MakeSettings, database_url: str, store: Store
) -> None:
    with trio.fail_after(25), observe(database_url) as observer:
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            await database.run(make_commits_wait)
            observer.ask("SELECT pg_advisory_lock(1)")
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel_at_commit, observer, scope)
                    value = await store(database, 7)
                    delivered = False
                    await trio.lowlevel.checkpoint()
                    delivered = True

            assert value == 7
            assert not delivered
            assert scope.cancelled_caught, "the next checkpoint delivers the cancel"
            assert await database.read(count) == 1
            assert database.statistics().cancels_sent == 0, "no cancel reaches COMMIT"
            assert database.statistics().cancels[Cancelled.TOO_LATE] == 1


@pytest.mark.parametrize("store", WAYS)
async def test_a_commit_that_has_to_be_cut_has_an_unknown_outcome(
    make_settings: MakeSettings, database_url: str, store: Store
) -> None:
    with trio.fail_after(25), observe(database_url) as observer:
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            await database.run(make_commits_slow, seconds=5)
            async with trio.open_nursery() as nursery:
                with trio.CancelScope() as scope:
                    nursery.start_soon(cancel_at_commit, observer, scope)
                    with pytest.raises(OutcomeUnknown):
                        await store(database, 7)

            assert database.statistics().units[Outcome.UNKNOWN] == 1
            assert database.statistics().lines_cut == 1
            assert database.statistics().cancels[Cancelled.CUT] == 1
            assert await database.read(select_one) == 1


async def test_a_long_stretch_of_python_ends_at_the_next_statement(make_settings: MakeSettings) -> None:
    """What is not guaranteed: a thread cannot be interrupted. Its caller waits; its locks are gone from the server."""
    started_thinking = threading.Event()

    def think(connection: Connection) -> None:
        insert(connection, number=1)
        started_thinking.set()
        time.sleep(1.5)
        insert(connection, number=2)

    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            await database.run(create_table)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.run, think)
                await wait_until(started_thinking.is_set)
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.8)
                    await database.run(insert, number=1)  # its row lock would still be held

            assert await database.read(select_numbers) == {1}


async def cancel_at_commit(observer: Observer, scope: trio.CancelScope) -> None:
    while not observer.ask(f"SELECT count(*) {OTHERS} AND query = 'COMMIT' AND state = 'active'"):
        await trio.sleep(0.001)
    scope.cancel()
    observer.ask("SELECT pg_advisory_unlock_all()")


async def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.001)


def wait_for_lock(connection: Connection) -> None:
    connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7)")


async def wait_on_a_thread(database: Database) -> None:
    await database.run(wait_for_lock)


async def wait_by_a_statement(database: Database) -> None:
    await database.execute(Statement("wait_for_lock", "SELECT pg_advisory_xact_lock(7)"))


@asynccontextmanager
async def open_line(server: OwnServer) -> AsyncIterator[tuple[Proxy, Database]]:
    """Yield a database of one connection, which is open, behind a proxy."""
    async with (
        open_proxy(server.port) as proxy,
        open_database(PlatformSettings(database_url=proxy.url(), database_connections=1)) as database,
    ):
        await database.run(select_one)
        yield proxy, database


@asynccontextmanager
async def waiting_for_its_lock(
    wait: Callable[[Database], Awaitable[None]], database: Database, observer: Observer
) -> AsyncIterator[trio.CancelScope]:
    """Yield the scope of a unit that waits for a lock of the observer's; go on when it has ended."""
    observer.ask("SELECT pg_advisory_lock(7)")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait, database)
        while not observer.ask(f"SELECT count(*) {OTHERS} AND wait_event = 'advisory'"):
            await trio.sleep(0.01)
        yield nursery.cancel_scope


@pytest.mark.parametrize("wait", [wait_on_a_thread, wait_by_a_statement])
async def test_a_connection_for_which_a_cancel_may_be_under_way_is_not_used_again(
    own_server: OwnServer, wait: Callable[[Database], Awaitable[None]]
) -> None:
    """Nobody knows whether a request that failed comes yet: it would end the next unit's statement."""
    with trio.fail_after(25), observe(own_server.url) as observer:
        async with open_line(own_server) as (proxy, database):
            async with waiting_for_its_lock(wait, database, observer) as scope:
                proxy.refuse()
                await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.1)  # it has asked in vain
                    observer.ask("SELECT pg_advisory_unlock(7)")
            after = database.statistics()

    assert after.cancels_sent > 0
    assert (after.units[Outcome.CANCELLED], after.connections_idle, after.connections_in_use) == (1, 0, 0)


async def test_no_rollback_is_sent_while_a_cancel_is_under_way(one_server: OwnServer) -> None:
    """It might hit that. The statement is over by itself, and the server takes its time with the request."""
    with trio.fail_after(25), observe(one_server.url) as observer:
        async with open_line(one_server) as (proxy, database):
            async with waiting_for_its_lock(wait_on_a_thread, database, observer) as scope:
                proxy.silent = True
                proxy.break_at(b"ROLLBACK", forward=False)
                scope.cancel()
                with trio.CancelScope(shield=True):
                    await trio.testing.wait_all_tasks_blocked()  # it has asked
                    observer.ask("SELECT pg_advisory_unlock(7)")
            after = database.statistics()

    assert proxy.broken == 0
    assert (after.units[Outcome.CANCELLED], after.lines_cut) == (1, 1)
