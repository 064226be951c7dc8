"""Defaults that an operator gave a role or a database: units of work are none the wiser, or it is told."""

import shutil
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
import structlog.testing
import trio
from sqlalchemy import Connection, make_url, text

from service.platform.database import open_database
from service.platform.database.migrate import migrate
from service.platform.database.migrator import LOCK, LOCK_OF_WORK
from service.platform.database.refusals import MigrationRefused
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import run_to_end, started
from tests.platform.database.migrations import ENVIRONMENT, write_migration
from tests.platform.database.observer import conninfo, observe
from tests.platform.database.units import create_table, insert, select_one, sleep

type MakeDatabase = Callable[..., PlatformSettings]

# What servers and roles are given by people who mean well, all at once.
DEFAULTS = {
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "TimeZone": "Asia/Kathmandu",
    "DateStyle": "German",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "-15",
    "array_nulls": "off",
    "standard_conforming_strings": "off",
    "bytea_output": "escape",
    "synchronous_commit": "off",
    "statement_timeout": "10ms",
    "lock_timeout": "1ms",
    "idle_in_transaction_session_timeout": "10ms",
    "idle_session_timeout": "1s",
    "plan_cache_mode": "force_generic_plan",
    "lc_messages": "POSIX",
    "row_security": "off",
    "client_min_messages": "debug1",
}
LATER = 1.5  # seconds after which a session would have been ended
SLEEPS = "SELECT count(*) FROM pg_stat_activity WHERE position('pg_sleep' in query) > 0 AND pid <> pg_backend_pid()"
SHOW = """
import trio
from sqlalchemy import text
from service.platform.database import open_database
from service.platform.settings import Catalogue, PlatformSettings
async def main():
    settings, _ = Catalogue(PlatformSettings).load()
    async with open_database(settings) as database:
        print(await database.read(lambda c: c.execute(text("SELECT timestamptz '2026-02-01T12:00:00Z'")).scalar()))
trio.run(main)
"""
MIGRATE = """
import sys
from pathlib import Path
from service.platform.database.migrate import migrate
from service.platform.database.refusals import MigrationRefused
from service.platform.settings import PlatformSettings
migrate(PlatformSettings(database_url=sys.argv[1]), migrations=Path(sys.argv[2]))
"""


@pytest.fixture
def make_database(one_server: OwnServer) -> Iterator[MakeDatabase]:
    """Yield a maker of a database in which sessions begin with these defaults."""
    with psycopg.connect(conninfo(one_server.url), autocommit=True) as administrator:
        administrator.execute("CREATE DATABASE other")

        def make(defaults: dict[str, str], **more: Any) -> PlatformSettings:
            for name, value in defaults.items():
                administrator.execute(f"ALTER DATABASE other SET {name} = '{value}'".encode())
            url = make_url(one_server.tcp_url).set(database="other").render_as_string(hide_password=False)
            direct = url if more.get("database_pooled") else None
            return PlatformSettings(database_url=url, database_direct_url=direct, **more)

        yield make
        administrator.execute("DROP DATABASE other WITH (FORCE)")


def say(connection: Connection) -> dict[str, Any]:
    statement = text("""
        SELECT timestamptz '2026-02-01T12:00:00Z' AS moment, float8 '0.1' + float8 '0.2' AS number,
            CAST(:texts AS text[]) AS texts, 'a\\b' AS backslash, CAST(:bytes AS bytea) AS bytes,
            current_setting('synchronous_commit') AS commits, pg_backend_pid() AS pid""")
    texts: list[str | None] = ["NULL", None]
    return dict(connection.execute(statement, {"texts": texts, "bytes": b"\0\\\xff"}).mappings().one())


def count_up(connection: Connection) -> int:
    """Read what is locked and write one more: each sees what the one before it has committed."""
    seen = connection.execute(text("SELECT number FROM numbers FOR UPDATE")).scalar_one()
    connection.execute(text("UPDATE numbers SET number = :next"), {"next": seen + 1})
    return int(seen)


async def count_together(settings: PlatformSettings) -> tuple[list[int], int]:
    """Return what units that wait for each other have seen, and how many had to be repeated."""
    seen: list[int] = []
    async with open_database(settings) as database:
        await database.run(create_table)
        await database.run(insert, number=0)

        async def one() -> None:
            for _ in range(5):
                seen.append(await database.run(count_up))

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
        return sorted(seen), database.statistics().retried


async def test_units_are_none_the_wiser(make_database: MakeDatabase) -> None:
    settings = make_database(DEFAULTS)
    migrate(settings, wait=0)
    with structlog.testing.capture_logs() as logged, trio.fail_after(30):
        async with open_database(settings) as database, database.listen("room") as wakeups:
            assert await anext(wakeups) is None
            first = await database.run(say)
            await database.run(sleep, 0.1)
            await trio.sleep(LATER)
            later = await database.read(say)
            await database.look()

    assert first == later, "in the same session, too"
    assert {name: value for name, value in first.items() if name != "pid"} == {
        "moment": datetime(2026, 2, 1, 12, tzinfo=UTC), "number": 0.1 + 0.2, "texts": ["NULL", None],
        "backslash": "a\\b", "bytes": b"\0\\\xff", "commits": "on",
    }  # fmt: skip
    assert first["moment"].isoformat() == "2026-02-01T12:00:00+00:00"
    assert not [line for line in logged if line["log_level"] == "warning"]


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
@pytest.mark.parametrize("pooled", [False, True])
async def test_who_has_waited_for_a_lock_sees_what_it_waited_for(
    make_database: MakeDatabase, level: str, pooled: bool
) -> None:
    settings = make_database(
        {"default_transaction_isolation": level}, database_pooled=pooled, database_queue_wait=30
    )  # fmt: skip
    with trio.fail_after(30):
        assert await count_together(settings) == (list(range(25)), 0)


def one_migration(directory: Path, up: str) -> Path:
    """Return a directory of migrations that holds this one."""
    migrations = directory / "migrations"
    (migrations / "versions").mkdir(parents=True)
    shutil.copy(ENVIRONMENT, migrations)
    write_migration(migrations, "one", None, serves_from="one", up=up)
    return migrations


async def test_a_long_migration_keeps_the_others_out(
    one_server: OwnServer, make_database: MakeDatabase, tmp_path: Path
) -> None:
    migrations = one_migration(tmp_path, f"SELECT pg_sleep({2 * LATER})")
    knows = int((one_server.data / "PG_VERSION").read_text()) >= 17
    settings = make_database(DEFAULTS | ({"transaction_timeout": "1s"} if knows else {}))
    with observe(one_server.url) as observer:
        running = Thread(target=migrate, args=(settings,), kwargs={"migrations": migrations})
        running.start()
        with trio.fail_after(30):
            while not observer.ask(SLEEPS):
                await trio.sleep(0.02)
            await trio.sleep(LATER)
        locked = observer.ask("SELECT array_agg(objid::int ORDER BY objid) FROM pg_locks WHERE locktype = 'advisory'")
        await trio.to_thread.run_sync(running.join)

    async with open_database(settings, migrations=migrations) as database:
        assert (await database.look()).revision == "one"
    assert locked == [LOCK, LOCK_OF_WORK]


async def test_a_migration_that_is_killed_leaves_no_statement_behind(one_server: OwnServer, tmp_path: Path) -> None:
    migrations = one_migration(tmp_path, "SELECT pg_sleep(60)")
    command = (sys.executable, "-c", MIGRATE, one_server.tcp_url, str(migrations))
    with observe(one_server.url) as observer, trio.fail_after(30):
        assert await observer.kill_running(command) < 5  # client_connection_check_interval is half a second


async def test_what_no_option_reaches_is_told(make_database: MakeDatabase, tmp_path: Path) -> None:
    settings = make_database(
        {"DateStyle": "German", "synchronous_commit": "off", "statement_timeout": "5s", "client_min_messages": "error"},
        database_pooled=True,
    )
    migrate(settings, wait=0)
    url = settings.database_url.get_secret_value()  # type: ignore[union-attr]  # it is set
    given = {"database_url": url, "database_direct_url": url, "database_pooled": "true"}
    found = run_to_end(tmp_path, "check", bind="127.0.0.1:0", management_bind="127.0.0.1:0", **given).stdout
    with started(tmp_path, "serve", **given) as service:
        warned = await service.wait_event("database sessions are not as they should be")
        await trio.sleep(3)
        again = service.events("database sessions are not as they should be")

    [line] = [line for line in found.splitlines() if " session " in line]
    for sentence in (
        "synchronous_commit is off: what is acknowledged may be lost when PostgreSQL is killed",
        "DateStyle is German, DMY, and ISO is needed",
        "client_min_messages is error, and warning is needed",
        "statement_timeout is 5000 ms, and 15000 are needed",
    ):
        assert sentence in line
        assert sentence in warned["found"]
    assert len(again) == 1


async def test_a_search_path_that_leads_nowhere_is_told(make_database: MakeDatabase) -> None:
    settings = make_database({"search_path": "nowhere"})
    with structlog.testing.capture_logs() as logged:
        async with open_database(settings) as database:
            assert (await database.look()).reachable

    [unfit] = [line["found"] for line in logged if line["event"] == "database sessions are not as they should be"]
    assert unfit == "search_path leads to no schema that the role may use"


def test_a_migration_whose_search_path_leads_nowhere_is_refused_with_what_to_do(make_database: MakeDatabase) -> None:
    with pytest.raises(MigrationRefused, match="search_path leads to no schema that the role may use: GRANT USAGE"):
        migrate(make_database({"search_path": "nowhere"}))


async def test_a_limit_in_the_url_is_the_operators_and_is_told(make_database: MakeDatabase, tmp_path: Path) -> None:
    url = make_url(make_database({}).database_url.get_secret_value())  # type: ignore[union-attr]  # it is set
    given = url.update_query_dict({"options": "-c synchronous_commit=off"}).render_as_string(hide_password=False)
    found = run_to_end(tmp_path, "check", bind="127.0.0.1:0", management_bind="127.0.0.1:0", database_url=given).stdout

    assert "synchronous_commit is off: what is acknowledged may be lost" in found
    async with open_database(PlatformSettings(database_url=given)) as database:
        assert (await database.read(say))["commits"] == "off"
        assert await database.run(select_one) == 1


async def test_what_libpq_takes_from_the_environment_does_not_matter(one_server: OwnServer, tmp_path: Path) -> None:
    command = (
        "env",
        "PGDATESTYLE=German",
        "PGTZ=Asia/Kathmandu",
        "PGCLIENTENCODING=LATIN1",
        sys.executable,
        "-c",
        SHOW,
    )
    done = run_to_end(tmp_path, command=command, database_url=one_server.tcp_url)

    assert done.stdout.splitlines()[-1] == "2026-02-01 12:00:00+00:00", done.stderr


@pytest.mark.parametrize("said", ["PGHOSTADDR=127.0.0.9", "PGSERVICE=nowhere"])
async def test_what_libpq_takes_from_the_environment_leads_to_no_other_server(
    one_server: OwnServer, tmp_path: Path, said: str
) -> None:
    """`service dev` would migrate a database there, which is nobody's to migrate."""
    done = run_to_end(tmp_path, command=("env", said, sys.executable, "-c", SHOW), database_url=one_server.url)

    assert done.stdout.splitlines()[-1:] == ["2026-02-01 12:00:00+00:00"], done.stderr
