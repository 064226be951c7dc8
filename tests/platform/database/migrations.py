"""Releases that tests install, upgrade and roll back: directories of migrations, each as far as one head."""

import shutil
from collections.abc import Callable
from pathlib import Path

ENVIRONMENT = Path(__file__).parents[3] / "migrations" / "env.py"

MIGRATION = '''"""{revision}"""

from alembic import op

revision = "{revision}"
down_revision = {down!r}
serves_from = {serves_from!r}
breaking = {breaking!r}


def upgrade() -> None:
    op.execute("{up}")


def downgrade() -> None:
    op.execute("{back}")
'''

# one: a table. two: a column that old code does not miss. three: old code's column goes, which breaks `one`.
HISTORY = (
    ("one", None, "one", None, "CREATE TABLE notes (body text)", "DROP TABLE notes"),
    ("two", "one", "one", None, "ALTER TABLE notes ADD title text", "ALTER TABLE notes DROP title"),
    ("three", "two", "two", "notes.body is gone", "ALTER TABLE notes DROP body", "ALTER TABLE notes ADD body text"),
)

# Takes the head that the release was made for, and returns its directory of migrations.
type Release = Callable[[str], Path]


def make_release(directory: Path, head: str) -> Path:
    made = directory / f"release-{head}"
    (made / "versions").mkdir(parents=True)
    shutil.copy(ENVIRONMENT, made)
    for revision, down, serves_from, breaking, up, back in HISTORY:
        write_migration(made, revision, down, serves_from=serves_from, breaking=breaking, up=up, back=back)
        if revision == head:
            return made
    raise KeyError(head)


def write_migration(
    made: Path,
    revision: str,
    down: str | None,
    *,
    serves_from: str | None,
    breaking: str | None = None,
    up: str = "SELECT 1",
    back: str = "SELECT 1",
) -> None:
    text = MIGRATION.format(revision=revision, down=down, serves_from=serves_from, breaking=breaking, up=up, back=back)
    (made / "versions" / f"{revision}.py").write_text(text)
