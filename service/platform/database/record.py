"""Writing the schema's state: for migrations/env.py in each migration's own transaction, and where there is none."""

import json
from collections.abc import Collection, Iterator, Mapping, Set
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, TextClause, text

from service.platform.database.refusals import MigrationsWrong
from service.platform.database.revisions import ancestors, newest_served
from service.platform.database.schema import STATE_TABLE
from service.platform.database.state import NOTHING, State, select_state

CREATE = f"""
CREATE TABLE IF NOT EXISTS {STATE_TABLE} (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    revision text NOT NULL,
    serves_from text NOT NULL,
    applied jsonb
)
"""
COMPLETE = f"ALTER TABLE {STATE_TABLE} ADD COLUMN IF NOT EXISTS applied jsonb"  # older versions made it without
DELETE = f"DELETE FROM {STATE_TABLE}"  # noqa: S608  a constant
INSERT = f"""
INSERT INTO {STATE_TABLE} (revision, serves_from, applied) VALUES (:revision, :serves_from, CAST(:applied AS jsonb))
"""  # noqa: S608  a constant

APPLIED = "applied"  # in the attributes of Alembic's configuration: the list of the revisions applied by this run


def record_state(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Write the state after the migration just run: Alembic's `on_version_apply`.

    `heads` are what the database has now: more than one between two branches and the migration that merges them.
    """
    del run_args
    scripts: Any = ctx.script
    before = NOTHING if ctx.as_sql or ctx.connection is None else select_state(ctx.connection)
    revision = step.up_revision_id if step.is_upgrade else next(iter(step.down_revision_ids), None)
    newest = {one for one in (revision, *heads) if one is not None}
    served = newest_served(scripts, newest)
    now = _after(scripts, revision, newest, served, before)
    if step.is_upgrade:
        _refuse_going_back(scripts, before, served, step.up_revision_id)
    elif now.applied is not None:
        now = now._replace(applied=now.applied - set(step.up_revision_ids))
    for statement in _statements(before, now):
        ctx.impl.execute(statement)
    if revision is not None and ctx.config is not None:
        ctx.config.attributes.setdefault(APPLIED, []).append(revision)


def note_heads(connection: Connection, scripts: ScriptDirectory, heads: Set[str]) -> None:
    """Write the state of a database that Alembic has at these revisions, without a migration; none of them empties it.

    Within the caller's transaction; blocks.
    """
    before = select_state(connection)
    now = _after(scripts, max(heads, default=None), heads, newest_served(scripts, heads), before)
    for statement in _statements(before, now):
        connection.execute(statement)


def _after(scripts: ScriptDirectory, revision: str | None, heads: Set[str], served: str | None, before: State) -> State:
    """Return the state with these revisions as heads, and the oldest whose code all of them serve.

    What was applied stays applied where the files do not tell any more: migrations are taken out, their tables are not.
    """
    if revision is None:
        return NOTHING
    known = set(before.applied or ())
    if before.applied is None and before.revision is not None:  # an older version wrote it
        known.add(before.revision)
    # Served is none by two branches that each serve their own code only, until they are merged.
    return State(revision, served or revision, known.union(*(ancestors(scripts, head) for head in heads)))


def _statements(before: State, now: State) -> Iterator[TextClause]:
    yield text(CREATE)
    if before.applied is None:
        yield text(COMPLETE)
    yield text(DELETE)
    if now.applied is not None:
        applied = json.dumps(sorted(now.applied))
        yield text(INSERT).bindparams(revision=now.revision, serves_from=now.serves_from, applied=applied)


def _refuse_going_back(scripts: ScriptDirectory, before: State, served: str | None, revision: str | None) -> None:
    """Code that was once left behind stays so: some data may already be in the new form only."""
    if served is not None and before.serves_from not in {None, *ancestors(scripts, served)}:
        raise MigrationsWrong(f"migration {revision}: `serves_from` goes back from {before.serves_from} to {served}")
