"""A standby: reads go on, writes are refused by name, and connections to it are replaced once there is a primary."""

import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import structlog.testing
import trio
from sqlalchemy import make_url
from trio.testing import MockClock

from service.platform.database import Database, Outcome, ServerAway, open_database
from service.platform.database.launch import find_binaries
from service.platform.database.migrate import migrate
from service.platform.errors import DatabaseAway, DatabaseUnable, OutcomeUnknown
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.migrations import make_release
from tests.platform.database.observer import OTHERS, Observer, conninfo, observe
from tests.platform.database.units import WAYS, Store, count, create_table, insert, select_numbers, select_one

SOON = 5.0


@pytest.fixture
def pair(clusters: Callable[[Path], Path]) -> Iterator[tuple[OwnServer, OwnServer]]:
    """Yield a primary, and a standby that has what the primary had at first: it follows nobody."""
    bindir = find_binaries()
    with closing(OwnServer(clusters(bindir), bindir)) as primary:
        copy = primary.data.with_name(primary.data.name + "-standby")
        shutil.copytree(primary.data, copy)
        with closing(OwnServer(copy, bindir)) as standby:
            standby.start()
            standby.become_standby()
            primary.start()
            yield primary, standby


def of_both(first: OwnServer, second: OwnServer, **query: str) -> str:
    more = "".join(f"&{name}={value}" for name, value in query.items())
    hosts = f"host=127.0.0.1:{first.port}&host=127.0.0.1:{second.port}"
    return f"postgresql+psycopg://postgres@/postgres?{hosts}{more}"


async def writes_again(database: Database, number: int) -> float:
    begun = trio.current_time()
    with trio.fail_after(SOON):
        while True:
            try:
                await database.run(insert, number=number)
            except DatabaseUnable:
                await trio.sleep(0.05)
            else:
                return trio.current_time() - begun


async def test_reads_go_on_and_writes_are_refused_by_name_until_it_is_promoted(one_server: OwnServer) -> None:
    settings = PlatformSettings(database_url=one_server.url)
    with structlog.testing.capture_logs() as logged, trio.fail_after(40):
        async with open_database(settings) as database:
            await database.run(create_table)
            one_server.become_standby()
            for _ in range(20):
                with pytest.raises(DatabaseUnable, match="is a standby, takes no writes"):
                    await database.run(insert, number=1)
            assert await database.read(count) == 0
            seen = await database.look()
            assert (seen.reachable, seen.standby) == (True, True)
            assert database.statistics().connections_idle <= 2
            one_server.promote()

            assert await writes_again(database, 1) < SOON
            await database.look()
            assert not database.condition.standby

    told = [line["event"] for line in logged]
    assert told.count("database takes no writes") == told.count("database takes writes again") == 1


@contextmanager
def read_only(server: OwnServer) -> Iterator[None]:
    """Have the sessions of a server write nothing, as operators do while its data move to another one."""
    with psycopg.connect(conninfo(server.url), autocommit=True) as administrator:
        administrator.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        administrator.execute("SELECT pg_reload_conf()")
        try:
            yield
        finally:
            administrator.execute("SET default_transaction_read_only = off")
            administrator.execute("ALTER SYSTEM RESET default_transaction_read_only")
            administrator.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("store", WAYS)
async def test_a_server_that_is_made_read_only_is_not_written_to_until_it_is_lifted(
    one_server: OwnServer, store: Store
) -> None:
    with trio.fail_after(40):
        async with open_database(PlatformSettings(database_url=one_server.url)) as database:
            await database.run(create_table)
            with read_only(one_server):
                stored = 0
                with suppress(DatabaseUnable):
                    while True:  # the server's processes hear of it one by one
                        await store(database, stored)
                        stored += 1
                for _ in range(5):
                    with pytest.raises(DatabaseUnable, match="takes no writes"):
                        await store(database, stored)
                assert await database.read(count) == stored
                seen = await database.look()
                assert (seen.reachable, seen.standby) == (True, True)
                assert seen.error == "the database takes no writes: default_transaction_read_only is on"

            assert await writes_again(database, stored) < SOON


async def test_of_several_hosts_one_that_is_made_read_only_is_left_for_the_other(
    pair: tuple[OwnServer, OwnServer],
) -> None:
    old, new = pair
    new.promote()
    with trio.fail_after(40), read_only(old):
        async with open_database(PlatformSettings(database_url=of_both(old, new))) as database:
            await database.run(create_table)
            await database.run(insert, number=1)

        async with open_database(PlatformSettings(database_url=new.url)) as database:
            assert await database.read(count) == 1


@pytest.mark.parametrize("attributes", [{}, {"target_session_attrs": "read-write"}], ids=["any", "read-write"])
async def test_of_several_hosts_the_primary_is_used_whatever_their_order(
    pair: tuple[OwnServer, OwnServer], attributes: dict[str, str]
) -> None:
    primary, standby = pair
    for url in (of_both(standby, primary, **attributes), of_both(primary, standby, **attributes)):
        with trio.fail_after(20):
            async with open_database(PlatformSettings(database_url=url)) as database:
                assert await database.run(lambda connection: connection.exec_driver_sql("SELECT 1").scalar()) == 1
                assert not (await database.look()).standby


async def test_of_several_addresses_the_primary_is_used_whatever_their_order(pair: tuple[OwnServer, OwnServer]) -> None:
    primary, standby = pair
    for first, second in ((standby, primary), (primary, standby)):
        # the names are looked up nowhere, as their addresses are given
        addresses = f"hostaddr=127.0.0.1,127.0.0.1&port={first.port},{second.port}"
        url = f"postgresql://postgres@/postgres?host=one,two&{addresses}"
        with trio.fail_after(20):
            async with open_database(PlatformSettings(database_url=url)) as database:
                assert not (await database.look()).standby


def test_migrations_find_the_primary_of_several_hosts_whatever_their_order(
    pair: tuple[OwnServer, OwnServer], tmp_path: Path
) -> None:
    primary, standby = pair
    release = make_release(tmp_path, "one")
    for url in (of_both(standby, primary), of_both(primary, standby, target_session_attrs="prefer-standby")):
        assert migrate(PlatformSettings(database_url=url), wait=0, migrations=release).after == "one"


def test_migrations_leave_a_server_that_is_made_read_only_for_another_and_else_wait(
    pair: tuple[OwnServer, OwnServer], tmp_path: Path
) -> None:
    """What they wrote there would stay behind when its data move."""
    old, new = pair
    new.promote()
    release = make_release(tmp_path, "one")
    told_otherwise = make_url(old.url).update_query_dict({"options": "-c default_transaction_read_only=off"})
    with read_only(old):
        with pytest.raises(
            ServerAway, match="takes no writes: it is a standby, or default_transaction_read_only is on"
        ):
            migrate(PlatformSettings(database_url=old.url), wait=0, migrations=release)
        both = migrate(PlatformSettings(database_url=of_both(old, new)), wait=0, migrations=release)
        own = told_otherwise.render_as_string(hide_password=False)
        meant = migrate(PlatformSettings(database_url=own), wait=0, migrations=release)

    assert (both.before, both.after) == (None, "one")
    assert (meant.before, meant.after) == (None, "one")


@contextmanager
def silent() -> Iterator[int]:
    """Yield a port where the kernel takes connections and nobody ever says a word, as behind a dead balancer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def test_a_look_reaches_the_second_host_when_the_first_never_answers(
    one_server: OwnServer, mock_clock: MockClock
) -> None:
    mock_clock.rate = 0.4  # a busy machine has longer to answer, within the same second of a look
    with trio.fail_after(30), silent() as port:
        url = f"postgresql://postgres@/postgres?host=127.0.0.1:{port}&host=127.0.0.1:{one_server.port}"
        async with open_database(PlatformSettings(database_url=url)) as database:
            condition = await database.look()

            assert (condition.reachable, condition.error) == (True, "")
            assert await database.run(select_one) == 1


async def test_why_each_host_was_not_taken_is_told(one_server: OwnServer) -> None:
    one_server.stop()
    with trio.fail_after(30), silent() as port:
        url = f"postgresql://postgres@/postgres?host=127.0.0.1:{port}&host=127.0.0.1:{one_server.port}"
        async with open_database(PlatformSettings(database_url=url)) as database:
            error = (await database.look()).error

    assert "no answer from 127.0.0.1" in error
    assert "Connection refused" in error


async def test_who_asked_for_a_server_that_takes_writes_gets_no_standby_not_even_to_read(
    pair: tuple[OwnServer, OwnServer],
) -> None:
    primary, standby = pair
    url = of_both(standby, primary, target_session_attrs="read-write")
    with trio.fail_after(60):
        async with open_database(PlatformSettings(database_url=url)) as database:
            await database.run(create_table)
            primary.stop("immediate")
            for unit in (database.read, database.run):
                with pytest.raises(DatabaseAway):
                    await unit(select_one)
            seen = await database.look()
            assert (seen.reachable, seen.standby) == (False, False)
            assert "session is read-only" in seen.error
            assert "Connection refused" in seen.error
            standby.promote()

            with trio.fail_after(SOON):
                while not (await database.look()).reachable:
                    await trio.sleep(0.05)
            assert await database.run(select_one) == 1


async def test_of_several_hosts_a_standby_serves_reads_until_there_is_a_primary(
    pair: tuple[OwnServer, OwnServer],
) -> None:
    primary, standby = pair
    with trio.fail_after(60), observe(standby.url) as observer:
        async with open_database(PlatformSettings(database_url=of_both(primary, standby))) as database:
            await database.run(create_table)
            primary.stop("immediate")
            with pytest.raises(DatabaseUnable, match="is a standby"):
                await writes_once(database)
            while not (await database.look()).standby:
                await trio.sleep(0.05)
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(database.read, read_slowly)
            assert observer.sessions() >= 5
            primary.start()

            assert await writes_again(database, 1) < SOON
            for _ in range(10):
                assert await database.read(select_numbers) == {1}, "nobody reads the standby any more"
            with trio.fail_after(SOON):
                while observer.sessions():
                    await database.read(select_numbers)
                    await trio.sleep(0.05)
            while (await database.look()).standby:  # nor is it looked at any more
                await trio.sleep(0.05)


async def writes_once(database: Database) -> None:
    """Write once the connections to the dead primary have been found to be dead."""
    await database.run(insert, number=0)


@pytest.mark.parametrize("store", WAYS)
async def test_a_commit_whose_wait_for_a_standby_was_cancelled_is_not_taken_for_safe(
    own_server: OwnServer, store: Store
) -> None:
    """It stands here, and is lost when the standby takes over. Operators do that with a COMMIT that hangs."""
    url = f"{own_server.url}&options=-c%20client_min_messages%3Derror"  # PostgreSQL says it in a warning alone
    with trio.fail_after(30), observe(own_server.url) as observer:
        async with open_database(PlatformSettings(database_url=url)) as database:
            await database.run(create_table)
            numbers = iter(range(1_000))
            with waiting_for_a_standby(observer):
                for _ in range(2):  # the second on the connection of the first
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(cancel_wait, observer)
                        with pytest.raises(OutcomeUnknown, match="synchronous standby"):
                            await insert_until_refused(database, numbers, store)
            assert await database.run(insert, number=1_000) == 1_000
            after = database.statistics()

    assert (after.units[Outcome.UNKNOWN], after.connections_idle, after.lines_replaced) == (2, 1, 0)


@contextmanager
def waiting_for_a_standby(observer: Observer) -> Iterator[None]:
    """Let each COMMIT wait for one that never comes."""
    try:
        observer.connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
        observer.connection.execute("SELECT pg_reload_conf()")
        yield
    finally:
        observer.connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
        observer.connection.execute("SELECT pg_reload_conf()")


async def insert_until_refused(database: Database, numbers: Iterator[int], store: Store) -> None:
    """The server's processes take notice of a setting in their own time."""
    for number in numbers:
        await store(database, number)


async def cancel_wait(observer: Observer) -> None:
    """Do as an operator does, once a COMMIT waits."""
    while not observer.ask(f"SELECT pg_cancel_backend(pid) {OTHERS} AND wait_event = 'SyncRep'"):
        await trio.sleep(0.01)


def read_slowly(connection: object) -> None:
    connection.exec_driver_sql("SELECT pg_sleep(0.3)")  # type: ignore[attr-defined]  # a Connection
