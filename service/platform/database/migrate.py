"""Bringing the schema to what this code needs: one runner at a time, one transaction for each migration.

Holds the decision and the lock; migrations/env.py runs Alembic, and `record` writes the schema's state for it.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import structlog
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from psycopg.conninfo import make_conninfo
from sqlalchemy import Connection, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import StaticPool

from service.platform.database.address import Address, encoding_problem
from service.platform.database.redaction import hide_values
from service.platform.database.schema import (
    SELECT_STATE,
    SchemaState,
    decide,
    explain,
    find_migrations,
    read_code_schema,
)
from service.platform.settings import PlatformSettings
from service.platform.settings.types import Seconds

LOCK = 0x5E12  # any number, but the same in every version: runners queue on it
LOCK_POLL = 0.1  # seconds; a blocking wait would hold a snapshot that CREATE INDEX CONCURRENTLY of the holder waits for
SERVER_POLL = 0.2
CONNECT_TIMEOUT = "5"

# For the migrations' session, once the lock is held: a lock timeout would cut the wait for it too. A migration that
# cannot have its table in this time fails and may be repeated, rather than let all queries queue behind it.
SESSION = (
    "SET lock_timeout = '3s'",
    "SET statement_timeout = 0",
    "SET idle_in_transaction_session_timeout = 0",
    "SET default_transaction_read_only = off",
)

log = structlog.get_logger(__name__)


class MigrationRefused(Exception):
    """The database or its schema is not one that this code may change; the message says what would help."""


class ServerAway(Exception):
    """No connection to PostgreSQL within the wait; the message has the last reason, without secrets."""


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a run did: the revisions before and after, and those applied, oldest first."""

    before: str | None
    after: str | None
    applied: tuple[str, ...]
    line: str


def migrate(
    settings: PlatformSettings, *, breaking: bool = False, wait: Seconds = 60, migrations: Path | None = None
) -> Migrated:
    """Bring the schema to this code's head; wait for the server at most `wait` seconds, and for other runners.

    Blocks: it is for the command line. A migration that says `breaking` is applied only when `breaking` is true, or
    when nothing was migrated before. Raises MigrationRefused and ServerAway; nothing of the refused is applied.
    """
    migrations = migrations or find_migrations()
    with open_migrator(settings, wait=wait) as connection:
        return _migrate(connection, migrations, breaking=breaking)


@contextmanager
def open_migrator(settings: PlatformSettings, *, wait: Seconds = 60) -> Iterator[Connection]:
    """Yield a connection for migrations while no other runner has one."""
    address = Address.direct(settings)
    with closing(_wait_connected(address, wait)) as guard:
        if problem := encoding_problem(guard.pgconn):
            raise MigrationRefused(problem)
        _wait_locked(guard)
        with closing(_wait_connected(address, wait)) as worker:
            for statement in SESSION:
                worker.execute(statement)
            worker.autocommit = False
            engine = create_engine("postgresql+psycopg://", creator=lambda: worker, poolclass=StaticPool)
            with engine.connect() as connection:
                yield connection


def _wait_connected(address: Address, wait: Seconds) -> psycopg.Connection:
    deadline = time.monotonic() + wait
    while True:
        try:
            conninfo = make_conninfo("", **{"connect_timeout": CONNECT_TIMEOUT} | address.parameters)
            return psycopg.connect(conninfo, autocommit=True)
        except psycopg.OperationalError as error:
            if time.monotonic() >= deadline:
                raise ServerAway(f"PostgreSQL cannot be reached: {' '.join(str(error).split())}") from None
        time.sleep(SERVER_POLL)


def _wait_locked(guard: psycopg.Connection) -> None:
    told = False
    while guard.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone() != (True,):
        if not told:
            log.info("waiting for another migration")
            told = True
        time.sleep(LOCK_POLL)


def _migrate(connection: Connection, migrations: Path, *, breaking: bool) -> Migrated:
    code = read_code_schema(migrations)
    before, serves_from = _select_state(connection)
    state = decide(code, before, serves_from)
    if state.served:
        return Migrated(before, before, (), f"nothing to do: {explain(code, before, serves_from)}")
    if state is SchemaState.AHEAD_INCOMPATIBLE:
        raise MigrationRefused(explain(code, before, serves_from))
    scripts = ScriptDirectory(str(migrations))
    pending = _pending(scripts, before)
    _refuse_breaking(scripts, pending, before, allowed=breaking)
    try:
        command.upgrade(_config(migrations, connection), "head")
    except DBAPIError as error:
        hide_values(error)  # "Key (email)=(...) is duplicated": the Job's log is no place for that
        raise
    applied = tuple(script.revision for script in pending)
    return Migrated(before, code.head, applied, f"migrated from {before or 'nothing'} to {code.head}")


def _config(migrations: Path, connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _select_state(connection: Connection) -> tuple[str | None, str | None]:
    with connection.begin():
        if connection.exec_driver_sql("SELECT to_regclass('schema_state')").scalar() is None:
            return None, None
        row: Any = connection.exec_driver_sql(SELECT_STATE).one_or_none()
        return (row.revision, row.serves_from) if row else (None, None)


def _pending(scripts: ScriptDirectory, before: str | None) -> list[Script]:
    return list(reversed(list(scripts.iterate_revisions("head", before or "base"))))


def _refuse_breaking(scripts: ScriptDirectory, pending: Sequence[Script], before: str | None, *, allowed: bool) -> None:
    if before is None:
        return  # no code works on this database yet
    for script in pending:
        reason = getattr(script.module, "breaking", None)
        if reason and not allowed:
            raise MigrationRefused(
                f"migration {script.revision} stops serving code that may be running: {reason}; "
                "apply it with --breaking once that code is gone"
            )
        if not reason and not _serves(scripts, script, before):
            raise MigrationRefused(f"migration {script.revision} stops serving {before} and does not say `breaking`")


def _serves(scripts: ScriptDirectory, script: Script, revision: str) -> bool:
    """Tell whether code of that revision can work once the migration is applied."""
    serves_from = script.module.serves_from
    return revision == serves_from or serves_from in ancestors(scripts, revision)


def ancestors(scripts: ScriptDirectory, revision: str) -> set[str]:
    """Return a revision and all before it."""
    return {script.revision for script in scripts.iterate_revisions(revision, "base")}
