"""Writing the schema's state: for migrations/env.py, called within each migration's own transaction."""

from collections.abc import Collection, Mapping
from typing import Any

from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import Script, ScriptDirectory
from sqlalchemy import text

from service.platform.database.migrate import MigrationRefused, ancestors
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


def record_state(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Write revision and `serves_from` of the migration just run: Alembic's `on_version_apply`."""
    del heads, run_args
    ctx.impl.execute(text(CREATE))
    revision = step.up_revision_id if step.is_upgrade else next(iter(step.down_revision_ids), None)
    if revision is None:
        ctx.impl.execute(text(DELETE))
        return
    scripts: Any = ctx.script
    script = scripts.get_revision(revision)
    if step.is_upgrade:
        _refuse_going_back(ctx, scripts, script)
    ctx.impl.execute(text(DELETE))
    values = {"revision": script.revision, "serves_from": _serves_from(scripts, script)}
    ctx.impl.execute(text(INSERT).bindparams(**values))


def _serves_from(scripts: ScriptDirectory, script: Script) -> str:
    serves_from: str | None = getattr(script.module, "serves_from", None)
    if serves_from not in ancestors(scripts, script.revision):
        raise MigrationRefused(
            f"migration {script.revision}: `serves_from` must be it or a revision before it; it is {serves_from!r}"
        )
    return serves_from


def _refuse_going_back(ctx: MigrationContext, scripts: ScriptDirectory, script: Script) -> None:
    """Code that was once left behind stays so: some data may already be in the new form only."""
    if ctx.as_sql or ctx.connection is None:
        return
    before = ctx.connection.execute(text(SELECT)).scalar()
    serves_from = _serves_from(scripts, script)
    if before is not None and before not in ancestors(scripts, serves_from):
        raise MigrationRefused(f"migration {script.revision}: `serves_from` goes back from {before} to {serves_from}")
