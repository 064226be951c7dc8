"""Databases of earlier releases, with rows in every table, and what the code of a release can do with a later schema.

A release is a directory of migrations up to one revision. Rows are made up from the columns' types. A table that takes
none of those has its rows in migrations/rows/REVISION.sql, which is run when the database has come to that revision.

The code of a release is taken to read every column of its schema, and to fill those that must be. Where it does more,
or less, a migration says so, for its own release and all after it: `fills = ("orders.customer",)` are columns that may
be empty and are filled in each row, `leaves = ("orders.text",)` those that are neither read nor written any more.
"""

import datetime
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from alembic.script import Script, ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, create_engine, func, insert, select
from sqlalchemy import types as sql
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import ranges
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from service.platform.database import CodeSchema, SchemaState
from service.platform.database.migrate import migrate
from service.platform.database.revisions import ancestors, read_scripts
from service.platform.database.schema import STATE_TABLE, decide
from service.platform.database.state import select_state
from service.platform.settings import PlatformSettings

OURS = {"alembic_version", STATE_TABLE}
# A statement of old code that fails so would fail for real rows too: a table or column that is gone, and one that must
# be filled and that old code does not know. A check that refuses made-up rows says nothing.
OLD_CODE_FAILS = ("42", "23502")


@dataclass(frozen=True, slots=True)
class Columns:
    """Columns, as TABLE.COLUMN, that the code of a release treats otherwise than its schema says."""

    filled: Set[str]
    left: Set[str]

    @classmethod
    def known_to(cls, scripts: ScriptDirectory, revision: str) -> Self:
        modules = [scripts.get_revision(one).module for one in ancestors(scripts, revision)]
        filled, left = ({name for one in modules for name in getattr(one, said, ())} for said in ("fills", "leaves"))
        return cls(filled - left, left)


def release_of(migrations: Path, revision: str, directory: Path) -> Path:
    """Return a directory with the migrations up to a revision."""
    made = directory / f"release-{revision}"
    if not made.exists():
        scripts = read_scripts(migrations)
        (made / "versions").mkdir(parents=True)
        shutil.copy(migrations / "env.py", made)
        for one in ancestors(scripts, revision):
            shutil.copy(scripts.get_revision(one).path, made / "versions")
    return made


def pending_after(migrations: Path, revision: str) -> list[Script]:
    """Return the migrations that a database at a revision has not had, oldest first."""
    scripts = read_scripts(migrations)
    return list(reversed(list(scripts.iterate_revisions("head", revision, implicit_base=True))))


def steps(scripts: ScriptDirectory, pending: Iterable[Script], *, at: str | None = None) -> Iterator[list[Script]]:
    """Yield what a database at a revision is brought on by, a release at a time, of which the last is the head.

    What is on another branch comes with the migration that joins the two: no release has it without the other.
    """
    waiting: list[Script] = []
    for script in pending:
        waiting.append(script)
        if at is None or at in ancestors(scripts, script.revision):
            yield waiting
            at, waiting = script.revision, []


def fill_database(url: str, migrations: Path, revision: str, directory: Path) -> None:
    """Bring an empty database to a revision, with rows in every table."""
    scripts = read_scripts(migrations)
    for step in steps(scripts, reversed(list(scripts.iterate_revisions(revision, "base")))):
        migrate(settings_for(url), migrations=release_of(migrations, step[-1].revision, directory), breaking=True)
        for rows in (migrations / "rows" / f"{script.revision}.sql" for script in step):
            if rows.exists():
                with connected(url) as connection:
                    connection.exec_driver_sql(rows.read_text())
    code = Columns.known_to(scripts, revision)
    with connected(url) as connection:
        for table in tables(connection):
            refused = _try_insert(connection, table, code, "first")
            if not connection.execute(select(func.count()).select_from(table)).scalar():
                why = "" if refused is None else f" ({str(refused.orig).splitlines()[0]})"
                raise AssertionError(
                    f"{table.name} takes no made-up rows{why}: say in its migration what the code `fills`, or put rows "
                    f"into migrations/rows/{revision}.sql"
                )


def upgrade_problems(url: str, migrations: Path, revision: str, directory: Path) -> Iterator[str]:
    """Upgrade a database of one release step by step; yield what its code would not survive and nobody announced."""
    scripts = read_scripts(migrations)
    code, columns = CodeSchema(revision, ancestors(scripts, revision)), Columns.known_to(scripts, revision)
    with connected(url) as connection:
        known = tables(connection)
    announced = False
    for step in steps(scripts, pending_after(migrations, revision), at=revision):
        script = step[-1]
        migrate(settings_for(url), migrations=release_of(migrations, script.revision, directory), breaking=True)
        announced = announced or any(one.module.breaking for one in step)
        with connected(url) as connection:
            state = decide(code, *select_state(connection))
            print(f"code of {revision} sees the schema of {script.revision}: {state}")
            if state is not SchemaState.AHEAD_COMPATIBLE and not announced:
                yield f"{script.revision} stops serving {revision} and does not say `breaking`"
            if state.served:
                for table in known:
                    if problem := _insert(connection, table, columns, script.revision) or _select(
                        connection, table, columns
                    ):
                        yield f"{script.revision} says that it serves {revision}, whose code fails: {problem}"


def connected(url: str) -> Any:
    return create_engine(url, poolclass=NullPool).begin()


def settings_for(url: str) -> PlatformSettings:
    return PlatformSettings(database_url=url)


def tables(connection: Connection) -> list[Table]:
    metadata = MetaData()
    metadata.reflect(connection)
    return [table for table in metadata.sorted_tables if table.name not in OURS]


def _insert(connection: Connection, table: Table, code: Columns, mark: str) -> str | None:
    """Insert a row as code does that knows these columns; return what of it old code would not survive."""
    refused = _try_insert(connection, table, code, mark)
    return None if refused is None else _problem(refused)


def _try_insert(connection: Connection, table: Table, code: Columns, mark: str) -> DBAPIError | None:
    try:
        with connection.begin_nested():
            connection.execute(insert(table).values(dict(_values(connection, table, code, mark))))
    except DBAPIError as error:
        return error
    return None


def _select(connection: Connection, table: Table, code: Columns) -> str | None:
    try:
        with connection.begin_nested():
            columns = [column for column in table.columns if f"{table.name}.{column.name}" not in code.left]
            connection.execute(select(*columns).select_from(table).limit(1)).all()
    except DBAPIError as error:
        return _problem(error)
    return None


def _problem(error: DBAPIError) -> str | None:
    state: str = getattr(error.orig, "sqlstate", None) or ""
    return str(error.orig).splitlines()[0] if state.startswith(OLD_CODE_FAILS) else None


def _values(connection: Connection, table: Table, code: Columns, mark: str) -> Iterator[tuple[str, Any]]:
    """Yield values for the columns that need one, or are filled anyway."""
    number = 1 + (connection.execute(select(func.count()).select_from(table)).scalar() or 0)
    for column in table.columns:
        filled = column.server_default is not None or column.identity is not None or column.computed is not None
        name = f"{table.name}.{column.name}"
        if (not column.nullable and not filled and name not in code.left) or name in code.filled:
            if column.foreign_keys:
                parent = next(iter(column.foreign_keys)).column
                yield column.name, connection.execute(select(parent).limit(1)).scalar()
            else:
                yield column.name, _value(column.type, number, mark)


def _value(kind: sql.TypeEngine[Any], number: int, mark: str) -> Any:
    now = datetime.datetime.now(datetime.UTC)
    if isinstance(kind, postgresql.DOMAIN):
        return _value(kind.data_type, number, mark)
    if isinstance(kind, sql.Enum):
        return kind.enums[0]
    if isinstance(kind, sql.String):
        return f"{number} {mark}"[: kind.length]
    made: Mapping[type[sql.TypeEngine[Any]], Any] = {
        sql.Boolean: True,
        sql.Integer: number,
        sql.Numeric: number,
        sql.Float: number,  # which is no Numeric
        sql.DateTime: now,
        sql.Date: now.date(),
        sql.Time: now.time(),
        postgresql.INTERVAL: datetime.timedelta(seconds=number),
        sql.LargeBinary: mark.encode(),
        sql.Uuid: uuid.uuid4(),
        sql.ARRAY: [],
        sql.JSON: {},
        ranges.AbstractSingleRange: ranges.Range(empty=True),
        ranges.AbstractMultiRange: [],
        postgresql.INET: "127.0.0.1",
        postgresql.CIDR: "127.0.0.0/8",
        postgresql.MACADDR: "08:00:2b:01:02:03",
        postgresql.MACADDR8: "08:00:2b:01:02:03:04:05",
        postgresql.TSVECTOR: mark,
        postgresql.TSQUERY: mark,
        postgresql.BIT: "1" * (getattr(kind, "length", None) or 1),
        postgresql.MONEY: str(number),
        postgresql.OID: number,
        postgresql.REGCLASS: "pg_class",
        postgresql.REGCONFIG: "simple",
    }
    return next((value for base, value in made.items() if isinstance(kind, base)), None)
