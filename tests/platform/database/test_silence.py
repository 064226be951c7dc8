"""Lines that fall silent and stay open, as behind a proxy whose server is gone, and those that lie idle beside them."""

import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from sqlalchemy import Connection

from service.platform.database import Database, Statement, open_database
from service.platform.errors import OutcomeUnknown
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.observer import observe
from tests.platform.database.proxy import Proxy, open_proxy
from tests.platform.database.units import select_one, sleep

LINES = 4
ONE = Statement("one", "SELECT 1")


@asynccontextmanager
async def open_pool(server: OwnServer) -> AsyncIterator[tuple[Proxy, Database]]:
    """Yield a database behind a proxy, with LINES of them idle."""
    async with (
        open_proxy(server.port) as proxy,
        open_database(PlatformSettings(database_url=proxy.url(), database_connections=LINES)) as database,
    ):
        async with trio.open_nursery() as nursery:
            for _ in range(LINES):
                nursery.start_soon(database.run, sleep, 0.05)
        assert database.statistics().connections_idle == LINES
        yield proxy, database


async def run(database: Database) -> None:
    await database.run(select_one)


async def read(database: Database) -> None:
    await database.read(select_one)


async def execute(database: Database) -> None:
    await database.execute(ONE)


async def fetch(database: Database) -> None:
    await database.fetch(ONE)


@pytest.mark.parametrize("ask", [run, read, execute, fetch])
async def test_one_unit_alone_waits_for_lines_that_fell_silent_together(
    one_server: OwnServer, ask: Callable[[Database], Awaitable[None]]
) -> None:
    with trio.fail_after(25):
        async with open_pool(one_server) as (proxy, database):
            proxy.mute()
            async with cancelled_once_it_is_silent(proxy, database, ask):
                pass

            await ask(database)
            await ask(database)
            assert database.statistics().lines_cut == 1
            assert database.statistics().lines_replaced == LINES - 1
            assert database.statistics().connections_idle == 1


async def test_a_commit_that_has_no_answer_is_such_a_silence(one_server: OwnServer) -> None:
    with trio.fail_after(25):
        async with open_pool(one_server) as (proxy, database):

            def mute(connection: Connection) -> None:
                select_one(connection)
                proxy.mute()

            with pytest.RaisesGroup(OutcomeUnknown):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(database.run, mute)
                    while b"COMMIT" not in proxy.swallowed:
                        await trio.sleep(0.001)
                    nursery.cancel_scope.cancel()

            assert database.statistics().lines_cut == 1
            assert database.statistics().connections_idle == 0


async def test_a_line_that_was_heard_from_since_stays_when_another_falls_silent(one_server: OwnServer) -> None:
    with trio.fail_after(25):
        async with open_pool(one_server) as (proxy, database):
            async with trio.open_nursery() as nursery:
                await nursery.start(sleep_on, one_server, database)
                await database.run(select_one)  # by the second of them, which leaves two
                proxy.mute()
                nursery.cancel_scope.cancel()

            assert database.statistics().lines_cut == 1
            assert database.statistics().connections_idle == 1


async def test_a_query_that_ends_when_it_is_told_to_takes_no_line_with_it(one_server: OwnServer) -> None:
    with trio.fail_after(25):
        async with open_pool(one_server) as (_, database):
            async with trio.open_nursery() as nursery:
                await nursery.start(sleep_on, one_server, database)
                nursery.cancel_scope.cancel()

            assert database.statistics().connections_idle == LINES


async def test_python_that_does_not_end_in_time_takes_no_line_with_it(one_server: OwnServer) -> None:
    """Its own line is cut, as its locks have to go; the server owed no answer."""
    thinking, cut = threading.Event(), threading.Event()

    def think(connection: Connection) -> None:
        select_one(connection)
        thinking.set()
        cut.wait(20)

    with trio.fail_after(25):
        async with open_pool(one_server) as (proxy, database):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.run, think)
                while not thinking.is_set():
                    await trio.sleep(0.001)
                lines = proxy.lines
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    while proxy.lines >= lines:
                        await trio.sleep(0.001)
                    cut.set()

            assert database.statistics().lines_cut == 1
            assert database.statistics().connections_idle == LINES - 1


async def sleep_on(server: OwnServer, database: Database, task_status: trio.TaskStatus[None]) -> None:
    """Have a query that answers late, and start once the server runs it."""
    with observe(server.url) as observer:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(database.run, sleep, 30)
            await observer.wait_running()
            task_status.started()


@asynccontextmanager
async def cancelled_once_it_is_silent(
    proxy: Proxy, database: Database, ask: Callable[[Database], Awaitable[None]]
) -> AsyncIterator[None]:
    """Have a unit wait for an answer that does not come; leave it at the end, and go on when it has ended."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask, database)
        while not any(words in proxy.swallowed for words in (b"BEGIN", b"SELECT 1")):
            await trio.sleep(0.001)
        yield
        nursery.cancel_scope.cancel()
