"""Migrations that were taken out of this code while databases may have run them: migrations/removed.toml names them.

Each line is a revision and the one before it, which may be nothing: `"0001" = ""`. Such a database is no other history:
it can go on from before, with the tables of what was removed left as they are.
"""

import tomllib
from collections.abc import Mapping, Set
from pathlib import Path

from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from service.platform.database.record import note_heads
from service.platform.database.refusals import MigrationsWrong
from service.platform.database.revisions import ancestors

FILE = "removed.toml"


def read_removed(migrations: Path) -> Mapping[str, str]:
    """Return the revision before each removed one; "" where there was none. Raises MigrationsWrong."""
    file = migrations / FILE
    if not file.exists():
        return {}
    try:
        return {revision: str(before) for revision, before in tomllib.loads(file.read_text()).items()}
    except tomllib.TOMLDecodeError as error:
        raise MigrationsWrong(f"{file} cannot be read: {error}") from error


def forget(connection: Connection, scripts: ScriptDirectory, heads: Set[str], removed: Mapping[str, str]) -> set[str]:
    """Let the database be where it was before the removed revisions among its heads; return its heads now.

    One transaction, the caller's. Tables are neither changed nor dropped.
    """
    kept = heads - removed.keys()
    before = {last_kept(revision, removed) for revision in heads & removed.keys()} - {""}
    behind = set().union(*(ancestors(scripts, one) - {one} for one in kept | before))
    now = (kept | before) - behind
    connection.execute(text("DELETE FROM alembic_version"))
    for revision in sorted(now):
        connection.execute(text("INSERT INTO alembic_version (version_num) VALUES (:one)").bindparams(one=revision))
    note_heads(connection, scripts, now)
    return now


def last_kept(revision: str, removed: Mapping[str, str]) -> str:
    """Return the revision that code and database share below a removed one; "" when there is none."""
    while revision in removed:
        revision = removed[revision]
    return revision
