"""What an error of PostgreSQL says about the database, by its SQLSTATE: whose fault it is, and what to call it.

Three answers. The database cannot serve this now: DatabaseUnable, 503. It is not what this code was written for, as a
table or a right is not there: DatabaseIncomplete, 500. All else is between the unit and its values: left as it is.
Source: PostgreSQL's documentation, appendix A.
"""

import psycopg
from sqlalchemy.exc import DBAPIError

from service.platform.database.address import PasswordUnreadable
from service.platform.database.pooled import ConnectionLost
from service.platform.database.redaction import flat
from service.platform.database.wire import STANDBY, ConnectFailed
from service.platform.errors import DatabaseIncomplete, DatabaseUnable, Unavailable

# What a task that runs beside the requests may meet, none of which is a bug of its own.
DATABASE_ERRORS = (Unavailable, DBAPIError, psycopg.Error, ConnectFailed, ConnectionLost, PasswordUnreadable)

# Serialization failure and deadlock: PostgreSQL picked this unit to lose, and the same again may win.
COLLISIONS = {"40001", "40P01"}
READ_ONLY = "25006"
UNSUPPORTED = "0A000"
LIMIT = "54000"
LOCK_NOT_AVAILABLE, UNIQUE_VIOLATION = "55P03", "23505"

# Classes, and single states, of a database that cannot: connection, who may log in, no such database, resources,
# operator, system, configuration, its own faults.
_UNABLE = ("08", "28", "3D", "53", "57", "58", "F0", "XX", "55006", "55P03")
# Names and rights that are not there; and what this version of PostgreSQL cannot do.
_INCOMPLETE = ("42", "3F", UNSUPPORTED, "26")

_WORDS = {
    "53": "PostgreSQL is short of a resource",
    "53100": "PostgreSQL's disk is full",
    "53300": "PostgreSQL has no connection left",
    "55006": "another session uses what this needs",
    "55P03": "another session holds a lock that this needs",
    "57": "an operator stopped it",
    "57014": "the statement was cancelled, or took too long",
    "58": "PostgreSQL met an error of its system",
    "XX": "PostgreSQL met an error of its own",
}
# Limits of the whole server, whose SQLSTATE is that of a value too large as well: told by the place in PostgreSQL that
# says so, as its words are translated.
QUEUE_FULL = "PreCommit_Notify"
_NO_NUMBERS = "PostgreSQL has no transaction numbers left until it is vacuumed"
_LIMITS = {
    QUEUE_FULL: "PostgreSQL's queue of notifications is full",
    "GetNewTransactionId": _NO_NUMBERS,
    "GetNewMultiXactId": _NO_NUMBERS,
}
# The classes of appendix A that an error can have: a label of a metric has these values and no others.
_CLASSES = (
    "03 08 09 0A 0B 0F 0L 0P 0Z 20 21 22 23 24 25 26 27 28 2B 2D 2F 34 38 39 3B 3D 3F 40 42 44 53 54 55 57 58 72 F0 HV"
    " P0 XX"
)


def sqlstate_of(error: BaseException) -> str:
    """Return the SQLSTATE that the driver's error, or ours made from one, carries; empty when there is none."""
    found = getattr(getattr(error, "orig", None) or error, "sqlstate", None)
    return found if isinstance(found, str) else ""


def translate(error: DBAPIError | psycopg.Error, *, standby: bool) -> Unavailable | None:
    """Return what to raise in the place of an error that is no fault of the unit's; None when it is."""
    state = sqlstate_of(error)
    if state == READ_ONLY:  # from a server that does take writes: somebody wrote in a `read`, which is a bug
        return DatabaseUnable(STANDBY, sqlstate=state) if standby else None
    limit = _LIMITS.get(_place_of(error)) if state == LIMIT else None
    if limit or state.startswith(_UNABLE):
        words = limit or _WORDS.get(state) or _WORDS.get(state[:2]) or "PostgreSQL cannot serve this now"
        return DatabaseUnable(f"{words} (SQLSTATE {state}); nothing is committed", sqlstate=state)
    if state.startswith(_INCOMPLETE):
        return DatabaseIncomplete(
            "the database is not as this service needs it: a table, a column or a right; it has been logged",
            sqlstate=state,
        )
    return None


def is_stale_plan(error: BaseException) -> bool:
    """Tell whether a statement was prepared for another shape of its table: "cached plan must not change result type".

    By the place in PostgreSQL that says so, as its words are translated and the SQLSTATE stands for other things too.
    """
    return sqlstate_of(error) == UNSUPPORTED and _place_of(error) == "RevalidateCachedQuery"


def is_queue_full(error: BaseException) -> bool:
    """Tell whether a COMMIT was refused as its notifications find no room in the queue of the whole server."""
    return sqlstate_of(error) == LIMIT and _place_of(error) == QUEUE_FULL


def _place_of(error: BaseException) -> str:
    """Return the function of PostgreSQL that the error comes from; empty when it is not known."""
    diag = getattr(getattr(error, "orig", None) or error, "diag", None)
    return getattr(diag, "source_function", None) or ""


def outlives(state: str) -> bool:
    """Tell whether a fault lies in the connection too, so that the next unit should have a new one."""
    return state.startswith((*_INCOMPLETE, "XX"))


def kind(error: BaseException) -> str:
    """Return the class of the SQLSTATE, or what the error is called: of a bounded number, for a metric."""
    state = sqlstate_of(error)
    if not state:
        return type(error).__name__
    return state[:2] if state[:2] in _CLASSES.split() else "other"


def _words(error: BaseException) -> str:
    return str(getattr(error, "orig", None) or error)  # without SQLAlchemy's, which add the statement


def one_line(error: BaseException) -> str:
    """Return what happened on one line: the words of PostgreSQL or libpq, which never hold a password."""
    behind = error.__cause__ if isinstance(error, Unavailable) and error.__cause__ is not None else None
    words = [_words(error)] if behind is None else [str(error), _words(behind)]
    return flat(": ".join(filter(None, words)))  # what is behind may have no words of its own
