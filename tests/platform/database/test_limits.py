"""A limit of the whole server that others have reached: no unit is at fault, and all is well once they are gone."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
import trio
from sqlalchemy import Connection, text

from service.platform.database import Database, Statement, open_database
from service.platform.database.launch import find_binaries
from service.platform.errors import DatabaseUnable
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.observer import conninfo
from tests.platform.database.units import count, create_table, insert

SOON = 5.0
SETTABLE = 17  # the version from which on the queue's size is a setting
PAGES = 64  # the least that it may be; a page is 8,192 bytes
TELL = "SELECT pg_notify('here', 'something')"
TELLS = Statement("tells", TELL)


@pytest.fixture
def small_queue(clusters: Callable[[Path], Path]) -> Iterator[OwnServer]:
    """Yield a server whose queue of notifications is soon full."""
    bindir = find_binaries()
    with closing(OwnServer(clusters(bindir), bindir)) as server:
        if int((server.data / "PG_VERSION").read_text()) < SETTABLE:
            pytest.skip("needs PostgreSQL 17")
        server.settings["max_notify_queue_pages"] = str(PAGES)
        server.start()
        yield server


def insert_and_tell(connection: Connection) -> None:
    insert(connection, number=1)
    connection.execute(text(TELL))


def tells_by_a_unit(database: Database) -> Awaitable[object]:
    return database.run(insert_and_tell)


def tells_by_a_statement(database: Database) -> Awaitable[object]:
    return database.execute(TELLS)


def fill(connection: psycopg.Connection) -> None:
    with suppress(psycopg.errors.ProgramLimitExceeded):
        for number in range(2 * PAGES):
            connection.execute("SELECT pg_notify('elsewhere', repeat('x', 7000) || %s)", [number])


@pytest.mark.parametrize("tells", [tells_by_a_unit, tells_by_a_statement])
async def test_a_full_queue_of_notifications_is_no_fault_of_a_unit_and_is_given_room(
    small_queue: OwnServer, tells: Callable[[Database], Awaitable[object]]
) -> None:
    where = conninfo(small_queue.url)
    with (
        trio.fail_after(30),
        psycopg.connect(where, autocommit=True) as holder,
        psycopg.connect(where, autocommit=True) as other,
    ):
        async with open_database(PlatformSettings(database_url=small_queue.url)) as database:
            await database.run(create_table)
            holder.execute("LISTEN elsewhere")
            holder.execute("BEGIN; SELECT count(*) FROM pg_class")  # as of one who reads nothing for hours
            fill(other)
            with pytest.raises(DatabaseUnable, match="queue of notifications is full") as refused:
                await tells(database)
            assert refused.value.sqlstate == "54000"
            assert await database.read(count) == 0
            holder.close()

            with trio.fail_after(SOON):
                while True:
                    try:
                        await tells(database)
                        break
                    except DatabaseUnable:
                        await trio.sleep(0.05)
