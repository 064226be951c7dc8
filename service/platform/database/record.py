"""Writing the schema's state: for migrations/env.py in each migration's own transaction, and where there is none."""

from collections.abc import Collection, Mapping, Set
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from service.platform.database.refusals import MigrationsWrong
from service.platform.database.revisions import ancestors, newest_served
from service.platform.database.schema import STATE_TABLE

CREATE = f"""
CREATE TABLE IF NOT EXISTS {STATE_TABLE} (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    revision text NOT NULL,
    serves_from text NOT NULL
)
"""
DELETE = f"DELETE FROM {STATE_TABLE}"  # noqa: S608  a constant
INSERT = f"INSERT INTO {STATE_TABLE} (revision, serves_from) VALUES (:revision, :serves_from)"  # noqa: S608  a constant
SELECT = f"SELECT serves_from FROM {STATE_TABLE}"  # noqa: S608  a constant

APPLIED = "applied"  # in the attributes of Alembic's configuration: the list of the revisions applied by this run


def record_state(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Write revision and `serves_from` of the migration just run: Alembic's `on_version_apply`.

    `heads` are what the database has now: more than one between two branches and the migration that merges them.
    """
    del run_args
    ctx.impl.execute(text(CREATE))
    revision = step.up_revision_id if step.is_upgrade else next(iter(step.down_revision_ids), None)
    if revision is None:
        ctx.impl.execute(text(DELETE))
        return
    scripts: Any = ctx.script
    served = newest_served(scripts, {revision, *heads})
    serves_from = served or revision  # none: two branches that each serve their own code only, until they are merged
    if step.is_upgrade and served is not None:
        _refuse_going_back(ctx, scripts, revision, served)
    ctx.impl.execute(text(DELETE))
    ctx.impl.execute(text(INSERT).bindparams(revision=revision, serves_from=serves_from))
    if ctx.config is not None:
        ctx.config.attributes.setdefault(APPLIED, []).append(revision)


def note_heads(connection: Connection, scripts: ScriptDirectory, heads: Set[str]) -> None:
    """Write the state of a database that Alembic has at these revisions, without a migration; none of them empties it.

    Within the caller's transaction; blocks.
    """
    connection.execute(text(CREATE))
    connection.execute(text(DELETE))
    if heads:
        newest = max(heads)
        serves_from = newest_served(scripts, heads) or newest
        connection.execute(text(INSERT).bindparams(revision=newest, serves_from=serves_from))


def _refuse_going_back(ctx: MigrationContext, scripts: ScriptDirectory, revision: str, serves_from: str) -> None:
    """Code that was once left behind stays so: some data may already be in the new form only."""
    if ctx.as_sql or ctx.connection is None:
        return
    before = ctx.connection.execute(text(SELECT)).scalar()
    if before is not None and before not in ancestors(scripts, serves_from):
        raise MigrationsWrong(f"migration {revision}: `serves_from` goes back from {before} to {serves_from}")
