"""What happens when PostgreSQL freezes, stops, restarts, moves, or dies at the worst moment; on every version here."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

import pytest
import trio
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.database import Database, Outcome, Statement, open_database
from service.platform.database.address import STATEMENT_MARGIN
from service.platform.database.doctor import ask
from service.platform.database.lane import STATEMENTS
from service.platform.database.sqlstate import one_line, sqlstate_of
from service.platform.database.wire import ANSWER_LIMIT, CONNECT_LIMIT
from service.platform.errors import DatabaseAway, OutcomeUnknown
from service.platform.settings import PlatformSettings
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.observer import OTHERS, observe
from tests.platform.database.proxy import open_proxy
from tests.platform.database.units import (
    WAYS,
    Store,
    count,
    create_table,
    insert,
    make_commits_slow,
    select_numbers,
    select_one,
    sleep,
)

END_ITSELF = "SELECT pg_terminate_backend(pg_backend_pid())"

type How = Literal["fast", "immediate"]


@pytest.mark.parametrize("most", [5, pytest.param(0.6, marks=pytest.mark.drill)])  # promised: 0.6, if it is quiet
async def test_a_frozen_backend_is_cut_off(own_server: OwnServer, most: float) -> None:
    with trio.fail_after(25), observe(own_server.url) as observer:
        async with open_database(PlatformSettings(database_url=own_server.url)) as database:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.run, sleep, 30)
                frozen = await observer.wait_running()
                os.kill(frozen, signal.SIGSTOP)
                started = time.perf_counter()
                nursery.cancel_scope.cancel()
            lasted = time.perf_counter() - started
            usable = await database.run(select_one)
            after = database.statistics()
            os.kill(frozen, signal.SIGCONT)

    print(f"frozen backend: back {lasted:.3f} s after the cancel")
    assert lasted < most
    assert usable == 1
    assert (after.lines_cut, after.connections_in_use) == (1, 0)


@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_units_are_refused_while_the_server_is_away_and_recover_by_themselves(
    own_server: OwnServer, how: How
) -> None:
    with trio.fail_after(25):
        async with open_database(PlatformSettings(database_url=own_server.url, database_connections=3)) as database:
            await database.run(create_table)
            await fill_pool(database, 3)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_away, database.run, sleep, 30)
                await trio.sleep(0.1)
                own_server.stop(how)  # the unit in flight is refused too
            for _ in range(5):
                await expect_away(database.run, select_one)
            own_server.start()
            recovered = await wait_recovered(database)

            print(f"restart, {how}: recovered {recovered:.3f} s after the server was back")
            assert recovered < 5
            assert await database.run(insert, number=1) == 1


async def test_a_failover_to_another_address_is_followed(
    own_server: OwnServer, clusters: Callable[[Path], Path]
) -> None:
    other = OwnServer(clusters(own_server.bindir), own_server.bindir)
    other.start()
    try:
        with trio.fail_after(25):
            async with (
                open_proxy(own_server.port) as proxy,
                open_database(PlatformSettings(database_url=proxy.url(), database_connections=3)) as database,
            ):
                await fill_pool(database, 3)
                own_server.stop("immediate")
                await expect_away(database.run, select_one)
                proxy.target = other.port
                recovered = await wait_recovered(database)

                print(f"failover: recovered {recovered:.3f} s after the address led to the new server")
                assert recovered < 5
                assert (await database.look()).reachable
    finally:
        other.close()


async def test_a_server_that_does_not_answer_is_given_up_within_the_connect_limit(own_server: OwnServer) -> None:
    with trio.fail_after(25):
        async with open_proxy(own_server.port) as proxy:
            proxy.silent = True
            async with open_database(PlatformSettings(database_url=proxy.url())) as database:
                started = trio.current_time()
                with pytest.raises(DatabaseAway):
                    await database.run(select_one)

                assert trio.current_time() - started < CONNECT_LIMIT + 5


async def test_dead_pooled_connections_are_replaced_unseen(own_server: OwnServer) -> None:
    with trio.fail_after(25), observe(own_server.url) as observer:
        async with open_database(PlatformSettings(database_url=own_server.url, database_connections=3)) as database:
            await fill_pool(database, 3)
            observer.ask(f"SELECT count(pg_terminate_backend(pid, 1000)) {OTHERS}")

            assert await database.run(select_one) == 1
            assert await database.read(select_one) == 1
            assert database.statistics().lines_replaced == 3


async def test_a_connection_that_dies_at_begin_is_replaced_unseen(own_server: OwnServer) -> None:
    with trio.fail_after(25):
        async with (
            open_proxy(own_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
        ):
            await database.run(create_table)
            proxy.break_at(b"BEGIN", forward=False)

            assert await database.run(insert, number=1) == 1
            assert await database.read(count) == 1
            assert database.statistics().lines_replaced == 1


async def test_a_line_that_dies_while_a_unit_reads_by_it_is_replaced_unseen(own_server: OwnServer) -> None:
    """As for a single statement: a read is not sent behind a BEGIN, by which it would be known before."""
    with trio.fail_after(25):
        async with (
            open_proxy(own_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
        ):
            await database.run(create_table)
            proxy.break_at(b"SELECT", forward=True)

            assert await database.read(count) == 0
            assert database.statistics().lines_replaced == 1


@pytest.mark.parametrize("way", ["read", "fetch"])
async def test_what_ended_both_lines_of_a_unit_that_reads_is_told(own_server: OwnServer, way: str) -> None:
    """The log says it to whoever looks for the cause, and a job is judged by it."""

    def end(connection: Connection) -> None:
        connection.execute(text(END_ITSELF))

    async with open_database(PlatformSettings(database_url=own_server.url)) as database:
        with pytest.raises(DatabaseAway) as refused:
            await (database.read(end) if way == "read" else database.fetch(Statement("end", END_ITSELF)))

    assert refused.value.__cause__ is not None
    assert sqlstate_of(refused.value.__cause__) == "57P01"
    assert "terminating connection due to administrator command" in one_line(refused.value)


@pytest.mark.parametrize("store", WAYS)
@pytest.mark.parametrize("forward", [True, False], ids=["committed", "not committed"])
async def test_a_line_that_dies_at_commit_has_an_unknown_outcome(
    own_server: OwnServer, forward: bool, store: Store
) -> None:
    with trio.fail_after(25):
        async with (
            open_proxy(own_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
        ):
            await database.run(create_table)
            proxy.break_at(b"COMMIT\0", forward=forward)
            await expect_unknown(database, store)

            assert await database.read(count) == (1 if forward else 0)
            assert database.statistics().units[Outcome.UNKNOWN] == 1


@pytest.mark.parametrize("store", WAYS)
async def test_a_backend_terminated_in_commit_leaves_an_unknown_outcome(own_server: OwnServer, store: Store) -> None:
    with trio.fail_after(25), observe(own_server.url) as observer:
        async with open_database(PlatformSettings(database_url=own_server.url)) as database:
            await database.run(create_table)
            await database.run(make_commits_slow, seconds=5)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(expect_unknown, database, store)
                while not (
                    pid := observer.ask("SELECT pid FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'")
                ):
                    await trio.sleep(0.001)
                observer.ask("SELECT pg_terminate_backend(%s)", pid)

            assert await database.run(select_one) == 1


async def test_a_line_lost_before_commit_is_not_committed(own_server: OwnServer) -> None:
    with trio.fail_after(25):
        async with (
            open_proxy(own_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
        ):
            await database.run(create_table)
            proxy.break_at(b"INSERT", forward=True)
            with pytest.raises(DatabaseAway):
                await database.run(insert, number=1)

            assert await database.read(select_numbers) == set()


async def test_a_unit_that_caught_the_loss_of_its_line_and_went_on_met_the_same(make_settings: MakeSettings) -> None:
    """As for a statement that may fail: what SQLAlchemy says to the next one would be a bug, and end the process."""

    def unit(connection: Connection) -> int:
        with suppress(DBAPIError), connection.begin_nested():
            connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return select_one(connection)

    with trio.fail_after(25):
        async with open_database(make_settings()) as database:
            with pytest.raises(DatabaseAway, match="nothing is committed"):
                await database.run(unit)


CLIENT = """
import sys, trio
from service.platform.database import open_database
from service.platform.settings import PlatformSettings
from tests.platform.database.units import sleep
async def main():
    async with open_database(PlatformSettings(database_url=sys.argv[1])) as database:
        await database.run(sleep, 30)
trio.run(main)
"""


async def test_nothing_runs_on_behind_a_killed_replica(writable_database_url: str) -> None:
    with trio.fail_after(25), observe(writable_database_url) as observer:
        command = (sys.executable, "-c", CLIENT, writable_database_url)

        assert await observer.kill_running(command) < 5  # client_connection_check_interval is half a second


async def test_every_session_has_the_static_ceilings(make_settings: MakeSettings) -> None:
    names = (
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "client_connection_check_interval",
    )
    with trio.fail_after(25):
        async with open_database(make_settings(request_deadline=7)) as database:
            shown = await database.read(
                lambda connection: [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
            )

            assert shown == ["12s", "3500ms", "5s", "500ms"]


@pytest.mark.parametrize(
    ("given", "idle"), [("", "15"), ("?options=-c%20tcp_keepalives_idle%3D60", "60")], ids=["ours", "the URL's"]
)
async def test_the_server_asks_after_a_client_whose_machine_may_be_gone(
    one_server: OwnServer, given: str, idle: str
) -> None:
    """A dead node's sessions, and the lock of its migration, would be kept for two hours. Read from its own sockets."""
    names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count", "tcp_user_timeout")
    with trio.fail_after(25):
        async with open_database(PlatformSettings(database_url=one_server.tcp_url + given)) as database:
            shown = await database.read(
                lambda connection: [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
            )

            assert shown == [idle, "5", "3", "30000"]


async def fill_pool(database: Database, size: int) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(size):
            nursery.start_soon(database.run, sleep, 0.05)
    assert database.statistics().connections_idle == size


async def expect_away(run: Callable[..., object], *args: object) -> None:
    started = trio.current_time()
    with pytest.raises(DatabaseAway):
        await run(*args)  # type: ignore[misc]  # a bound method of Database
    assert args[-1] == 30 or trio.current_time() - started < 5, "refused at once"


async def expect_unknown(database: Database, store: Store) -> None:
    with pytest.raises(OutcomeUnknown):
        await store(database, 1)


async def wait_recovered(database: Database) -> float:
    started = trio.current_time()
    while True:
        try:
            await database.run(select_one)
        except DatabaseAway:
            await trio.sleep(0.01)
        else:
            return trio.current_time() - started


@pytest.mark.parametrize(("transactional", "begins"), [(True, b"BEGIN"), (False, b"SELECT 1")], ids=["run", "read"])
async def test_a_task_whose_line_falls_silent_goes_on_by_another(
    one_server: OwnServer, mock_clock: MockClock, transactional: bool, begins: bytes
) -> None:
    """Behind a pooler or a proxy, whose own line to a server that is gone stays open for minutes, or for hours."""
    mock_clock.rate = 1
    async with open_proxy(one_server.port) as proxy, trio.open_nursery() as nursery:
        nursery.start_soon(end_after, 50.0, nursery)  # a deadline around the unit would be its own
        async with open_database(PlatformSettings(database_url=proxy.url())) as database:
            do = database.run if transactional else database.read
            results: list[int] = []

            async def work() -> None:
                results.append(await do(select_one))

            await database.keep_running(work)
            proxy.mute()
            nursery.start_soon(database.keep_running, work)
            while begins not in proxy.swallowed:  # a unit that was stopped ahead of that gives its line back unharmed
                await trio.sleep(0.01)
            mock_clock.jump(STATEMENTS * (10 + STATEMENT_MARGIN))
            while len(results) < 2:
                await trio.sleep(0.01)

            assert database.statistics().background_failures == {"DatabaseAway": 1}
            assert database.statistics().lines_cut == 1
        nursery.cancel_scope.cancel()

    assert results == [1, 1]


async def test_a_task_s_unit_takes_as_long_as_its_own_deadline_allows(
    make_settings: MakeSettings, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    taken, free = threading.Event(), threading.Event()
    results: list[bool] = []

    def wait(_: Connection) -> bool:
        taken.set()
        return free.wait(30)

    async def work() -> None:
        with trio.fail_after(3_600):
            results.append(await database.run(wait))

    async with open_database(make_settings()) as database:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.keep_running, work)
            await trio.to_thread.run_sync(taken.wait)
            mock_clock.jump(STATEMENTS * (10 + STATEMENT_MARGIN))
            await wait_all_tasks_blocked()
            free.set()

        assert database.statistics().background_failures == {}
    assert results == [True]


async def test_the_doctor_gives_up_a_server_that_lets_it_in_and_does_not_answer(
    one_server: OwnServer, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    waiting = f"SELECT count(*) {OTHERS} AND wait_event_type = 'Lock'"
    with trio.fail_after(60), observe(one_server.url) as observer, observe(one_server.url) as holder:
        observer.connection.execute("CREATE TABLE schema_state (revision text, serves_from text)")
        async with open_proxy(one_server.port) as proxy, trio.open_nursery() as nursery:

            async def ask_doctor() -> None:
                with pytest.raises(DatabaseAway, match="lets us in, and does not answer within 10 s"):
                    await ask(PlatformSettings(database_url=proxy.url()))

            with holder.connection.transaction():
                holder.connection.execute("LOCK TABLE schema_state")
                nursery.start_soon(ask_doctor)
                while not observer.ask(waiting):
                    await trio.sleep(0.01)
                proxy.mute()
                mock_clock.jump(ANSWER_LIMIT)


async def end_after(seconds: float, nursery: trio.Nursery) -> None:
    await trio.sleep(seconds)
    nursery.cancel_scope.cancel()
