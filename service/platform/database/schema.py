"""Whether this code can work with the schema that the database has. Pure, but for the migrations' directory.

Code knows its newest revision (its head) and that one's history; the database knows its revision and `serves_from`, the
oldest revision whose code it still serves, and which were applied: code of another branch may know the former and yet
miss its own.
"""

import enum
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import MetaData

from service.platform.database.chain import read_chain
from service.platform.database.refusals import MigrationsMissing

# Names that do not depend on the order of creation, so that a migration can name what it changes.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# One row; written by migrations/env.py in the transaction of each migration.
STATE_TABLE = "schema_state"


class SchemaState(enum.StrEnum):
    AT = "at"
    BEHIND = "behind"
    AHEAD_COMPATIBLE = "ahead_compatible"
    AHEAD_INCOMPATIBLE = "ahead_incompatible"

    @property
    def served(self) -> bool:
        """True when the code can work on such a schema."""
        return self in {SchemaState.AT, SchemaState.AHEAD_COMPATIBLE}


@dataclass(frozen=True, slots=True)
class CodeSchema:
    """What the code needs: the revision it was written for, and all before that and it. No head means no tables."""

    head: str | None
    history: Set[str]


def decide(
    code: CodeSchema, revision: str | None, serves_from: str | None, applied: Set[str] | None = None
) -> SchemaState:
    """Return how the database's schema stands to the code's; `applied` is unknown where an older version migrated."""
    if revision == code.head:
        return SchemaState.AT
    if revision is None or revision in code.history:
        return SchemaState.BEHIND
    if code.head is None:
        return SchemaState.AHEAD_COMPATIBLE  # there are no tables that could be missed
    if serves_from in code.history and (applied is None or code.head in applied):
        return SchemaState.AHEAD_COMPATIBLE
    return SchemaState.AHEAD_INCOMPATIBLE


def explain(code: CodeSchema, revision: str | None, serves_from: str | None, applied: Set[str] | None = None) -> str:
    """Say in one line how they stand, and what would help."""
    match decide(code, revision, serves_from, applied):
        case SchemaState.AT:
            return f"the schema is at {revision}"
        case SchemaState.BEHIND:
            return f"the schema is at {revision or 'nothing yet'}, this code needs {code.head}: run `service migrate`"
        case SchemaState.AHEAD_COMPATIBLE:
            return f"the schema is at {revision}, newer than this code's {code.head}, which it still serves"
        case SchemaState.AHEAD_INCOMPATIBLE if serves_from in code.history:
            return (
                f"the schema is at {revision}, where {code.head}, which this code needs, was never applied: it is of "
                "another branch; code that has both can migrate it"
            )
        case SchemaState.AHEAD_INCOMPATIBLE:
            return (
                f"the schema is at {revision} and serves code from {serves_from} on, which this code, {code.head}, "
                "does not know: it is too old, or of another history"
            )


def find_migrations() -> Path:
    """Return the directory of migrations: beside the package in a clone, else where the process runs (the image)."""
    for parent in (Path(__file__).resolve().parents[3], Path()):
        if (parent / "migrations" / "env.py").is_file():
            return (parent / "migrations").absolute()
    raise MigrationsMissing("no directory `migrations` beside the package `service` nor in the one it was started in")


def read_code_schema(migrations: Path) -> CodeSchema:
    """Read the migrations' files. Raises MigrationsWrong, also when they have two heads.

    Those of a plain form are read as text, and not run.
    """
    if chain := read_chain(migrations):
        return CodeSchema(chain[-1], frozenset(chain))
    from service.platform.database.revisions import read_scripts  # here: it imports Alembic

    scripts = read_scripts(migrations)
    head = scripts.get_current_head()
    history = frozenset(script.revision for script in scripts.walk_revisions()) if head else frozenset()
    return CodeSchema(head, history)
