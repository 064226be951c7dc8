"""Bringing the schema to what this code needs, one transaction for each migration. Three ways to fail, and no fourth.

- ServerAway: PostgreSQL cannot be reached, or a lock or a place was not to be had. Worth a repeat.
- MigrationRefused: what is asked for is not allowed, or the files are wrong. A repeat gives the same.
- MigrationFailed: a migration's own SQL or code failed. A repeat gives the same.

Holds the decision; `migrator` holds connection and lock, migrations/env.py runs Alembic, `record` writes the state, and
`progress` tells where it ended.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection

from service.platform.database.grants import check_role, grant_to
from service.platform.database.migrator import open_migrator
from service.platform.database.progress import Progress, in_one_line
from service.platform.database.record import APPLIED, note_heads
from service.platform.database.refusals import MigrationRefused
from service.platform.database.removed import forget, last_kept, read_removed
from service.platform.database.revisions import ancestors, declared, read_scripts
from service.platform.database.schema import (
    STATE_TABLE,
    CodeSchema,
    SchemaState,
    decide,
    explain,
    find_migrations,
    read_code_schema,
)
from service.platform.database.state import select_state
from service.platform.settings import PlatformSettings
from service.platform.settings.types import Seconds


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a run did: the revisions before and after, and those applied, oldest first."""

    before: str | None
    after: str | None
    applied: tuple[str, ...]
    line: str


def migrate(
    settings: PlatformSettings,
    *,
    breaking: bool = False,
    forgetting: bool = False,
    wait: Seconds = 60,
    migrations: Path | None = None,
) -> Migrated:
    """Bring the schema to this code's head; wait for the server at most `wait` seconds, and for other runners.

    Blocks: it is for the command line. A migration that stops serving code that may be running is applied only when
    `breaking` is true, or when nothing was migrated before; nothing of the refused is applied. With `forgetting`, a
    database that has run what migrations/removed.toml names goes on from before it.
    Raises ServerAway, MigrationRefused and MigrationFailed.
    """
    migrations = migrations or find_migrations()
    read_scripts(migrations)  # before the wait for a server: wrong files are wrong without one
    progress = Progress()
    with in_one_line(progress), open_migrator(settings, wait=wait) as connection:
        progress.follow(connection)
        _refuse_nowhere(connection)
        if forgetting:
            _forget(connection, migrations)
        if role := settings.migration_grant_to:
            with connection.begin():
                check_role(connection, role)
        done = _migrate(connection, migrations, progress, breaking=breaking)
        if role:
            progress.granting = role
            with connection.begin():
                grant_to(connection, role)
        return done


def _migrate(connection: Connection, migrations: Path, progress: Progress, *, breaking: bool) -> Migrated:
    code, scripts = read_code_schema(migrations), read_scripts(migrations)
    with connection.begin():
        recorded = select_state(connection)
    before, state = recorded.revision, decide(code, *recorded)
    heads = _select_heads(connection)
    _refuse_removed(code, heads, read_removed(migrations))
    if state.served:
        return Migrated(before, before, (), f"nothing to do: {explain(code, *recorded)}")
    if state is SchemaState.AHEAD_INCOMPATIBLE:
        raise MigrationRefused(explain(code, *recorded))
    if foreign := sorted(heads - code.history):
        raise MigrationRefused(f"the schema is at {', '.join(foreign)}, which this code does not know: another history")
    progress.pending = _pending(scripts, heads)
    if not progress.pending:
        with connection.begin():
            note_heads(connection, scripts, heads)
        had = f"where Alembic had it: {STATE_TABLE} said {before or 'nothing'}"
        return Migrated(before, code.head, (), f"noted that the schema is at {code.head}, {had}; nothing to migrate")
    _refuse_breaking(scripts, progress.pending, heads, allowed=breaking)
    config = configure(migrations, connection)
    config.attributes[APPLIED] = progress.applied
    command.upgrade(config, "head")
    return Migrated(before, code.head, tuple(progress.applied), f"migrated from {before or 'nothing'} to {code.head}")


def _refuse_nowhere(connection: Connection) -> None:
    """Refuse to migrate where no table could be made or found, as behind a search_path with a slip."""
    with connection.begin():
        if connection.exec_driver_sql("SELECT current_schema()").scalar() is None:
            raise MigrationRefused(
                "search_path leads to no schema that the role may use: "
                "GRANT USAGE, CREATE ON SCHEMA ... TO the role that migrates, or set its search_path"
            )


def _refuse_removed(code: CodeSchema, heads: set[str], removed: Mapping[str, str]) -> None:
    """Refuse to leave it at that when a removed migration hides that some of this code's have not been applied."""
    gone = heads & removed.keys()
    if gone and code.head not in {None, *(last_kept(revision, removed) for revision in gone)}:
        raise MigrationRefused(
            f"the schema is at {' and '.join(sorted(gone))}, which was taken out of this code: `--forget` "
            "goes on from before it, and leaves its tables as they are"
        )


def _forget(connection: Connection, migrations: Path) -> None:
    """Let the database be as if it had never run what was taken out of the code."""
    heads, removed = _select_heads(connection), read_removed(migrations)
    if heads & removed.keys():
        with connection.begin():
            forget(connection, read_scripts(migrations), heads, removed)


def configure(migrations: Path, connection: Connection) -> Config:
    """Return Alembic's configuration for a directory of migrations and a connection to run them on."""
    config = Config()
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def _select_heads(connection: Connection) -> set[str]:
    """Return what Alembic has applied: more than one revision where branches were, before their merge."""
    with connection.begin():
        return set(MigrationContext.configure(connection).get_current_heads())


def _pending(scripts: ScriptDirectory, heads: set[str]) -> list[Script]:
    return list(reversed(list(scripts.iterate_revisions("head", tuple(heads) or "base", implicit_base=True))))


def _refuse_breaking(scripts: ScriptDirectory, pending: Sequence[Script], heads: set[str], *, allowed: bool) -> None:
    served = {revision: declared(scripts, scripts.get_revision(revision)) for revision in _revisions(pending)}
    if not heads or allowed:
        return  # no code works on this database yet, or none any more
    known = set().union(*(ancestors(scripts, revision) for revision in heads))
    for script in pending:
        if reason := getattr(script.module, "breaking", None):
            raise MigrationRefused(
                f"migration {script.revision} stops serving code that may be running: {reason}; "
                "apply it with --breaking once that code is gone"
            )
        if served[script.revision] not in known:
            raise MigrationRefused(
                f"migration {script.revision} stops serving {' and '.join(sorted(heads))} and does not say `breaking`: "
                f"its serves_from is {served[script.revision]}, while one that only adds has that of the migration "
                "before it; apply it with --breaking if that code is gone"
            )


def _revisions(scripts: Sequence[Script]) -> Iterator[str]:
    return (script.revision for script in scripts)
