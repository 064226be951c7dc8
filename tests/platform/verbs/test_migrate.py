"""`service migrate` as a Job sees it: what it says while it waits, one line when it fails, and a code for each kind."""

import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import trio
from psycopg.errors import Diagnostic

from service.platform.database.migrate import migrate
from service.platform.database.migrator import LOCK, open_migrator
from service.platform.testing.copies import copy_repository, run_in
from service.platform.testing.fixtures import HEAD, waits_for_a_schema
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import run_to_end, started
from service.platform.verbs.program import FAILED, REFUSED, UNREACHABLE
from tests.platform.database.migrations import write_migration
from tests.platform.database.observer import OTHERS, conninfo, observe
from tests.platform.database.proxy import open_proxy
from tests.platform.database.test_standby import cancel_wait, waiting_for_a_standby
from tests.platform.upgrades import settings_for

FIRST = HEAD or "next"


@dataclass(frozen=True)
class Failure:
    """A migration after the head, what is done to the database before it runs, and how that ends."""

    up: str
    code: int
    words: str
    before: str = ""
    breaking: str | None = None


AS_APP = "SET ROLE app"  # the verb logs in so
FAILURES = [
    Failure("ALTER TABLE nothing ADD x int", FAILED, 'nothing ADD x int: relation "nothing" does not exist'),
    Failure("INSERT INTO busy VALUES ('y'), ('y')", FAILED, "duplicate key value violates unique constraint"),
    Failure("SELECT 'hunter2'::int", FAILED, "(SQLSTATE 22P02)"),
    Failure("DO $$ BEGIN RAISE EXCEPTION 'a rule: % %', 1, 2; END $$", FAILED, "(SQLSTATE P0001)"),
    Failure("CREATE TABLE " + "x" * 300 + "()", FAILED, "…", before="CREATE TABLE " + "x" * 63 + "()"),
    Failure("DROP TABLE busy", REFUSED, "nobody uses it; apply it with --breaking", breaking="nobody uses it"),
    Failure("ALTER TABLE busy ADD x int", REFUSED, "must be owner of table busy (SQLSTATE 42501)", before=AS_APP),
    Failure("SELECT 1", REFUSED, "denied for table schema", before=f"REVOKE ALL ON schema_state FROM app; {AS_APP}"),
    Failure("ALTER TABLE busy ADD x int", UNREACHABLE, "55P03); it may be repeated", before="LOCK TABLE busy"),
    Failure("SELECT pg_terminate_backend(pg_backend_pid())", UNREACHABLE, "it may be repeated"),
    Failure(
        "CREATE TABLE lazy (x text REFERENCES busy DEFERRABLE INITIALLY DEFERRED); INSERT INTO lazy VALUES ('y')",
        FAILED, "failed: COMMIT: insert or update on table \"lazy\" violates",
    ),
]  # fmt: skip


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_repository(tmp_path_factory.mktemp("migrate") / "clone")


@contextmanager
def sleeping(clone: Path, seconds: float) -> Iterator[None]:
    """Have one more migration in it, which takes so long."""
    write_migration(clone / "migrations", "next", HEAD, serves_from=FIRST, up=f"SELECT pg_sleep({seconds})")
    yield
    (clone / "migrations" / "versions" / "next.py").unlink()


@pytest.fixture
def live(one_server: OwnServer) -> Iterator[tuple[str, psycopg.Connection]]:
    """Yield a migrated database on a server of its own, with a role `app`, and somebody else's connection."""
    migrate(settings_for(one_server.tcp_url))
    with psycopg.connect(conninfo(one_server.tcp_url), autocommit=True) as other:
        other.execute("CREATE TABLE busy (x text PRIMARY KEY); CREATE ROLE app LOGIN")
        other.execute("GRANT ALL ON schema_state, alembic_version TO app; GRANT ALL ON SCHEMA public TO app")
        other.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO app; ALTER TABLE schema_state OWNER TO app")
        yield one_server.tcp_url, other
        other.execute("ROLLBACK; DROP OWNED BY app")


@waits_for_a_schema
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure.code} {failure.words[:30]}")
def test_what_fails_is_one_line_and_a_code_by_its_kind(
    clone: Path, live: tuple[str, psycopg.Connection], failure: Failure
) -> None:
    url, other = live
    versions = clone / "migrations" / "versions"
    write_migration(clone / "migrations", "next", HEAD, serves_from=FIRST, breaking=failure.breaking, up=failure.up)
    if failure.before.endswith(AS_APP):
        url = url.replace("postgres@", "app@")
        other.execute(failure.before.removesuffix(AS_APP).encode())
    elif failure.before.startswith("LOCK"):
        other.execute(b"BEGIN; " + failure.before.encode())
    else:
        other.execute(failure.before.encode())
    done = run_in(clone, "service", "migrate", SERVICE_DATABASE_URL=url, SERVICE_LOG_LEVEL="info")
    (versions / "next.py").unlink()

    assert done.returncode == failure.code, done.stderr
    [line] = done.stderr.splitlines()
    assert failure.words in line
    assert line.startswith(("migration next", "reading the schema's state"))
    assert len(line) < 500
    assert "Traceback" not in done.stdout + done.stderr


def test_the_traceback_is_there_at_debug(clone: Path, writable_database_url: str) -> None:
    write_migration(clone / "migrations", "next", HEAD, serves_from=FIRST, up="SELECT nothing")
    done = run_in(
        clone, "service", "migrate", SERVICE_DATABASE_URL=writable_database_url, SERVICE_LOG_LEVEL="debug"
    )  # fmt: skip
    (clone / "migrations" / "versions" / "next.py").unlink()

    assert done.returncode == FAILED
    assert "Traceback" in done.stderr


@pytest.mark.parametrize("text", ["SELECT CAST(CAST(:name AS text) AS int)", "SELECT :name, :missing"])
def test_the_values_of_a_statement_that_fails_are_not_told(clone: Path, writable_database_url: str, text: str) -> None:
    """Nor at debug: a migration that fills a column has rows of people in its parameters."""
    write_migration(clone / "migrations", "next", HEAD, serves_from=FIRST)
    file = clone / "migrations" / "versions" / "next.py"
    statement = f'op.get_bind().execute(sa.text("{text}"), {{"name": "".join(["A", "da"])}})'
    with_values = file.read_text().replace('op.execute("SELECT 1")', statement, 1)
    file.write_text(with_values.replace("from alembic", "import sqlalchemy as sa\nfrom alembic", 1))
    done = run_in(
        clone, "service", "migrate", SERVICE_DATABASE_URL=writable_database_url, SERVICE_LOG_LEVEL="debug"
    )  # fmt: skip
    file.unlink()

    assert done.returncode == FAILED
    assert "Traceback" in done.stderr
    assert "Ada" not in done.stderr


def test_a_bug_in_a_migration_is_one_line(clone: Path, writable_database_url: str) -> None:
    write_migration(clone / "migrations", "next", HEAD, serves_from=FIRST)
    file = clone / "migrations" / "versions" / "next.py"
    file.write_text(file.read_text().replace('op.execute("SELECT 1")', "op.execute(undefined)", 1))
    done = run_in(clone, "service", "migrate", SERVICE_DATABASE_URL=writable_database_url)
    file.unlink()

    assert done.returncode == FAILED
    assert done.stderr == "migration next failed: NameError: name 'undefined' is not defined\n"


def test_help_tells_the_codes(tmp_path: Path) -> None:
    told = " ".join(run_to_end(tmp_path, "migrate", "--help").stdout.split())

    for code, word in ((UNREACHABLE, "reached"), (REFUSED, "refused"), (FAILED, "SQL")):
        assert f" {code} " in told.partition("Exit codes:")[2].partition(word)[0] + " "


async def test_a_wait_says_why_and_each_change_of_it(tmp_path: Path, one_server: OwnServer) -> None:
    url = one_server.tcp_url
    one_server.stop()
    with started(tmp_path, "migrate", "--wait", "60", database_url=url) as waiting:
        away = await waiting.wait_event("database away")
        one_server.start()
        reached = await waiting.wait_event("database reached")
        code = await waiting.wait_end()

    assert "connection to server" in away["error"]  # refused, or closed by what has the port meanwhile
    assert away["level"] == "warning"
    assert away["waiting_at_most"] == 60
    assert reached["level"] == "info"
    assert code == 0
    reasons = [line["error"] for line in waiting.events("database away")]
    assert len(reasons) == len(set(reasons))  # not one for each try


def test_no_database_at_all_is_worth_a_repeat(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run_to_end(tmp_path, "migrate", "--wait", "0", database_url=f"postgresql://me:hunter2@127.0.0.1:{port}/db")

    assert done.returncode == UNREACHABLE
    assert done.stderr.startswith("PostgreSQL cannot be reached: ")
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


async def test_a_standby_is_waited_for_by_its_name(tmp_path: Path, one_server: OwnServer) -> None:
    signal_file = one_server.data / "standby.signal"
    one_server.stop()
    signal_file.touch()
    one_server.start()
    with started(tmp_path, "migrate", "--wait", "60", database_url=one_server.tcp_url) as waiting:
        away = await waiting.wait_event("database away")
        with psycopg.connect(conninfo(one_server.tcp_url), autocommit=True) as connection:
            connection.execute("SELECT pg_promote()")
        code = await waiting.wait_end()

    assert away["error"].endswith(
        "failed: the server takes no writes: it is a standby, or default_transaction_read_only is on"
    )
    assert code == 0


async def test_a_restart_while_another_migrates_is_waited_for_like_any(tmp_path: Path, one_server: OwnServer) -> None:
    with trio.fail_after(120):
        with observe(one_server.url) as other:
            other.connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            with (
                started(tmp_path, "migrate", "--wait", "60", database_url=one_server.tcp_url) as patient,
                started(tmp_path, "migrate", "--wait", "0", name="hasty", database_url=one_server.tcp_url) as hasty,
            ):
                for waiting in (patient, hasty):
                    await waiting.wait_event("waiting for another migration")
                one_server.stop()
                away = await patient.wait_event("database away")
                given_up = await hasty.wait_end()
                one_server.start()
                code = await patient.wait_end()

    assert away["waiting_at_most"] == 60
    assert code == 0
    assert given_up == UNREACHABLE
    last = hasty.log.read_text().splitlines()[-1]
    assert last.startswith("the connection was lost while another migration was waited for: terminating connection")
    assert last.endswith("; it may be repeated")


async def test_a_line_that_falls_silent_before_the_migrations_is_given_up(
    tmp_path: Path, one_server: OwnServer
) -> None:
    """Behind a proxy that keeps it open, as while another migrates: it would be waited for without a word."""
    with trio.fail_after(60), observe(one_server.url) as other:
        other.connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        async with open_proxy(one_server.port) as proxy:
            with started(tmp_path, "migrate", database_url=proxy.url()) as waiting:
                await waiting.wait_event("waiting for another migration")
                proxy.mute()
                code = await waiting.wait_end()

    assert code == UNREACHABLE
    last = waiting.log.read_text().splitlines()[-1]
    assert last == "PostgreSQL let us in and did not answer within 10 s; it may be repeated"


@pytest.mark.parametrize("committed", [False, True], ids=["before it", "after it"])
async def test_a_commit_without_an_answer_is_of_its_own_migration_and_may_be_repeated(
    clone: Path, one_server: OwnServer, *, committed: bool
) -> None:
    """As when the primary goes away at that moment; the one that follows it has the migration, or has it not."""
    with trio.fail_after(60), observe(one_server.url) as other, sleeping(clone, 1):
        async with open_proxy(one_server.port) as proxy:
            with started(clone, "migrate", database_url=proxy.url()) as cut:
                await other.wait_running()
                proxy.break_at(b"COMMIT", forward=committed)
                code = await cut.wait_end()
        with started(clone, "migrate", name="again", database_url=one_server.tcp_url) as again:
            assert await again.wait_end() == 0

    assert code == UNREACHABLE
    [line] = cut.log.read_text().splitlines()
    assert line.startswith("migration next failed: COMMIT: ")
    assert line.endswith("; whether it was committed is not known; it may be repeated")
    assert ("nothing to do" in again.log.read_text()) == committed


@waits_for_a_schema
def test_a_line_that_is_lost_outside_of_a_transaction_is_worth_a_repeat_too(
    clone: Path, writable_database_url: str
) -> None:
    """As that of an index or a backfill, which take long enough to meet a failover."""
    write_migration(clone / "migrations", "next", HEAD, serves_from=FIRST, up="SELECT pg_sleep(0)")
    file = clone / "migrations" / "versions" / "next.py"
    long = """with op.get_context().autocommit_block():
        op.execute("SELECT pg_terminate_backend(pg_backend_pid())")"""
    file.write_text(file.read_text().replace('op.execute("SELECT pg_sleep(0)")', long))
    done = run_in(clone, "service", "migrate", SERVICE_DATABASE_URL=writable_database_url)
    file.unlink()

    assert done.returncode == UNREACHABLE, done.stderr
    [line] = done.stderr.splitlines()
    assert line.startswith(
        "migration next failed: SELECT pg_terminate_backend(pg_backend_pid()): terminating connection"
    )
    assert line.endswith("; it may be repeated")


async def test_a_migration_ends_when_its_lock_is_lost_as_another_may_begin(clone: Path, one_server: OwnServer) -> None:
    with trio.fail_after(60), observe(one_server.url) as other, sleeping(clone, 600):
        with started(clone, "migrate", database_url=one_server.tcp_url) as running:
            await other.wait_running()
            other.ask("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s", LOCK)
            code = await running.wait_end()
        await other.wait_gone()

    assert code == UNREACHABLE
    [line] = running.log.read_text().splitlines()
    assert line.startswith("migration next failed: the connection that keeps other runners out was lost: terminating")
    assert line.endswith("; it may be repeated")


async def test_a_migration_ends_when_the_server_falls_silent(clone: Path, one_server: OwnServer) -> None:
    with trio.fail_after(60), observe(one_server.url) as other, sleeping(clone, 600):
        async with open_proxy(one_server.port) as proxy:
            with started(clone, "migrate", database_url=proxy.url()) as running:
                await other.wait_running()
                proxy.mute()
                code = await running.wait_end()

    assert code == UNREACHABLE
    assert running.log.read_text() == (
        "migration next failed: PostgreSQL has not answered for 10 s; it may be repeated\n"
    )


@pytest.mark.parametrize("by", ["SQLAlchemy", "the driver"])
async def test_lines_that_are_reset_are_told_by_the_migration_alone(one_server: OwnServer, by: str) -> None:
    """Both at once, while a migration's own code runs: there is nothing left to cut, and no traceback of that."""
    async with open_proxy(one_server.port) as proxy:

        def run() -> None:
            with open_migrator(settings_for(proxy.url())) as connection:
                [looks] = [one for one in threading.enumerate() if one.name == "lock of the migrations"]
                trio.from_thread.run_sync(proxy.reset)
                looks.join()
                if by == "SQLAlchemy":
                    connection.exec_driver_sql("SELECT 1")
                else:  # as a migration does that copies rows
                    connection.connection.cursor().execute("SELECT 1")

        with trio.fail_after(60), pytest.raises(psycopg.OperationalError, match="keeps other runners out was lost"):
            await trio.to_thread.run_sync(run)


@waits_for_a_schema
async def test_what_a_runner_commits_that_was_killed_is_waited_for(clone: Path, one_server: OwnServer) -> None:
    """Its COMMIT waits for a standby, also when its client is gone: the next runner would make the same table again."""
    migrate(settings_for(one_server.tcp_url))
    write_migration(clone / "migrations", "next", HEAD, serves_from=FIRST, up="CREATE TABLE late (x int)")
    with trio.fail_after(60), observe(one_server.url) as other, ExitStack() as hanging:
        hanging.enter_context(waiting_for_a_standby(other))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_wait, other)
            await trio.to_thread.run_sync(commit_until_one_waits, one_server.url)
        with started(clone, "migrate", database_url=one_server.tcp_url) as killed:
            while not other.ask(f"SELECT pid {OTHERS} AND wait_event = 'SyncRep'"):
                await trio.sleep(0.01)
            killed.send(signal.SIGKILL)
            await killed.wait_end()
        with started(clone, "migrate", name="again", database_url=one_server.tcp_url) as again:
            await again.wait_event("waiting for another migration")
            assert other.ask("SELECT to_regclass('late')") is None
            hanging.close()

            assert await again.wait_end() == 0
    (clone / "migrations" / "versions" / "next.py").unlink()

    assert "nothing to do" in again.log.read_text()


def commit_until_one_waits(url: str) -> None:
    """Return once the server has taken notice of its setting, and that wait was cancelled."""
    heard: list[Diagnostic] = []
    with psycopg.connect(conninfo(url), autocommit=True) as connection:
        connection.add_notice_handler(heard.append)
        while not heard:
            connection.execute("SELECT pg_logical_emit_message(true, '', '')")
