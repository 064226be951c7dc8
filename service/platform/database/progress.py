"""How far a run of migrations has come, and the one line that says where it ended, and why."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import structlog
from alembic.script import Script
from alembic.util import CommandError
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from service.platform.database.migrator import ServerAway
from service.platform.database.redaction import flat, hide_values
from service.platform.database.refusals import MigrationRefused

MAX_STATEMENT = 200  # characters of a failed statement that are shown

# What the server says when it has no time for us: connection lost, transaction cut by others, resources, shutdown,
# and a lock that was not to be had. Then the same may well succeed later.
PASSING_CLASSES = ("08", "40", "53", "57")
PASSING = ("55P03", "25006")  # lock_not_available; read_only_sql_transaction, as on a primary that became a standby
LACKS_RIGHT = "42501"

log = structlog.get_logger(__name__)


class MigrationFailed(Exception):
    """A migration's own SQL or code failed; the message has revision, statement, reason and SQLSTATE, no values."""


@dataclass(slots=True)
class Progress:
    """Which migrations are to be applied, and which have been: the first that has not is the one that failed.

    `applied` has each before its COMMIT, so it counts only once the next transaction begins.
    """

    pending: Sequence[Script] = ()
    applied: list[str] = field(default_factory=list)
    granting: str = ""
    committed: int = 0
    committing: bool = False

    def follow(self, connection: Connection) -> None:
        """Take notice of its transactions."""
        event.listen(connection, "begin", self._note_begin)
        event.listen(connection, "commit", self._note_commit)

    def _note_begin(self, _: Connection) -> None:
        self.committed, self.committing = len(self.applied), False

    def _note_commit(self, connection: Connection) -> None:
        self.committing = not connection.invalidated  # lost before, it has nothing to commit

    def __str__(self) -> str:
        if self.granting:
            return f"rights for {self.granting}"
        done = self.applied[: self.committed]
        left = [script.revision for script in self.pending if script.revision not in done]
        return f"migration {left[0]}" if left else "reading the schema's state"


@contextmanager
def in_one_line(progress: Progress) -> Iterator[None]:
    """Turn whatever goes wrong into one of the three errors; where it came from is logged at debug."""
    try:
        yield
    except (ServerAway, MigrationRefused):
        raise
    except CommandError as error:  # Alembic's own refusals
        raise MigrationRefused(f"{progress}: {flat(error)}") from error
    except Exception as error:  # a migration is code, too
        hide_values(error)  # "Key (email)=(...) is duplicated": the Job's log is no place for that
        log.debug("migration failed", exc_info=error)
        raise _explained(progress, _first(error)) from error


def _first(error: BaseException) -> BaseException:
    """Return what a connection was lost by, where SQLAlchemy then says that it cannot end an autocommit block on it."""
    while isinstance(error, PendingRollbackError) and error.__context__ is not None:
        error = error.__context__
    return error


def _explained(progress: Progress, error: BaseException) -> Exception:
    cause = error.orig if isinstance(error, DBAPIError) else error
    statement = error.statement if isinstance(error, DBAPIError) else None
    parts = [f"{progress} failed", _shortened(statement)] if statement else [f"{progress} failed"]
    if not isinstance(cause, psycopg.Error):
        return MigrationFailed(": ".join([*parts, type(cause).__name__, flat(cause)]))
    lost = cause.sqlstate is None and isinstance(cause, psycopg.OperationalError)
    at_commit = progress.committing and statement is None
    message = ": ".join([*parts, *(["COMMIT"] if at_commit else []), flat(cause)])
    if cause.sqlstate == LACKS_RIGHT:
        return MigrationRefused(f"{message}; `migrate` needs a role that may do this")
    if lost or cause.sqlstate in PASSING or str(cause.sqlstate).startswith(PASSING_CLASSES):
        unknown = "; whether it was committed is not known" if at_commit else ""
        return ServerAway(f"{message}{unknown}; it may be repeated")
    return MigrationFailed(message)


def _shortened(statement: str) -> str:
    line = flat(statement)
    return line if len(line) <= MAX_STATEMENT else f"{line[:MAX_STATEMENT]}…"
