"""What the thread of a unit does: BEGIN, the function, COMMIT, or ROLLBACK; and what its errors mean.

BEGIN and COMMIT are sent by hand rather than by the driver: so it is known what was sent when a connection dies, and
a COMMIT that the server turned into a ROLLBACK is noticed.
"""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGresult
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, PendingRollbackError

from service.platform.database.pooled import ConnectionLost, PooledConnection
from service.platform.database.redaction import hide_values
from service.platform.database.sqlstate import READ_ONLY, UNSUPPORTED, is_stale_plan
from service.platform.database.unit import ENDS_NO_TRANSACTION, Unit
from service.platform.database.wire import READ_ONLY_WORDS, STANDBY
from service.platform.errors import DatabaseAway, OutcomeUnknown

# Both said, as the defaults may be otherwise: tests set them so that a `read` cannot write, and a role behind a pooler
# may ask for more than READ COMMITTED, in which a unit that has waited for a lock would not see what it waited for.
BEGIN, COMMIT = b"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", b"COMMIT"
NOT_IN_RECOVERY = UNSUPPORTED  # what a standby says to READ WRITE

# What a unit ends with whose connection was lost: the last, where it has caught the first, as of a statement that may
# fail, and goes on.
_OF_A_LOSS = (DBAPIError, psycopg.Error, ConnectionLost, PendingRollbackError)


class DeadAtBegin(Exception):
    """The connection was dead before anything was done, or read by alone: the unit may have another."""


class StandbyAtBegin(Exception):
    """The connection leads to a server that takes no writes: the unit may have another, if there is a primary.

    The message says why it takes none.
    """


class StalePlan(Exception):
    """The connection has a statement prepared for a table that was altered since: the unit may have another."""


class Aborted(Exception):
    """The unit went on after a failed statement, so PostgreSQL refused to commit it."""


def takes_no_writes(error: psycopg.Error) -> bool:
    """Tell whether BEGIN was refused because the server is a standby, or was made one."""
    return error.sqlstate in {READ_ONLY, NOT_IN_RECOVERY}


def perform[T](  # noqa: PLR0917  Trio's threads take positional arguments only
    unit: Unit,
    pooled: PooledConnection,
    engine: Engine,
    function: Callable[..., T],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> T:
    """Run the function in its transaction, or without one, and leave the connection clean or broken."""
    try:
        with unit:
            connection = _begin(unit, pooled, engine)
            value = function(connection, *args, **kwargs)
        if unit.transactional:
            _commit(unit, pooled, engine, connection, value)
    except BaseException as error:
        hide_values(error)
        _roll_back(pooled)
        unit.lost = pooled.broken and isinstance(error, (*_OF_A_LOSS, DeadAtBegin, OutcomeUnknown))
        if pooled.broken and isinstance(error, _OF_A_LOSS):
            if not unit.transactional:
                raise DeadAtBegin from error  # noqa: ASYNC104  on a thread, where there is no Cancelled
            lost = "the connection to PostgreSQL was lost; nothing is committed"
            raise DatabaseAway(lost) from error  # noqa: ASYNC104  the same
        if is_stale_plan(error):
            raise StalePlan from error  # noqa: ASYNC104  the same
        raise
    if not pooled.usable:
        _roll_back(pooled)
    return value


def _begin(unit: Unit, pooled: PooledConnection, engine: Engine) -> Connection:
    connection = pooled.connection(engine)
    if unit.transactional:
        try:
            _send(pooled, BEGIN)
        except psycopg.Error as error:
            if pooled.broken:
                raise DeadAtBegin from error
            if takes_no_writes(error):
                raise StandbyAtBegin(STANDBY) from error
            raise
        if pooled.read_only:  # now, as the answer to BEGIN is what tells of it
            raise StandbyAtBegin(READ_ONLY_WORDS)
        connection.begin()  # tells SQLAlchemy; sends nothing
    return connection


def _commit(unit: Unit, pooled: PooledConnection, engine: Engine, connection: Connection, value: object) -> None:
    transaction = connection.get_transaction()
    if transaction is None or not transaction.is_active:
        raise RuntimeError("a unit of work does not roll back: it raises, and database.run rolls back")
    if pooled.broken:
        raise ConnectionLost("the connection was lost before COMMIT")
    if pooled.usable:  # PostgreSQL would answer COMMIT all the same, and warn
        raise RuntimeError(ENDS_NO_TRANSACTION)
    try:
        done = _send(pooled, COMMIT)
    except psycopg.Error as error:
        _judge(unit, pooled, engine, error)
    if done.command_status != COMMIT:
        raise Aborted("a statement of the unit failed and the unit went on: PostgreSQL rolled it back")
    unit.outcome_unknown = pooled.warnings.not_replicated
    pooled.warnings.refuse_unreplicated()
    unit.value = value
    unit.committed = True


def _judge(unit: Unit, pooled: PooledConnection, engine: Engine, error: psycopg.Error) -> NoReturn:
    """Tell a COMMIT that was refused, by a deferred constraint for example, from one whose answer is missing."""
    if pooled.usable:
        raise DBAPIError.instance("COMMIT", None, error, psycopg.Error, dialect=engine.dialect) from error
    unit.outcome_unknown = True
    raise OutcomeUnknown("the connection was lost while committing: it may be committed or not") from error


def _send(pooled: PooledConnection, command: bytes) -> PGresult:
    result = pooled.pgconn.exec_(command)
    if result.status != pq.ExecStatus.COMMAND_OK:
        raise psycopg.errors.error_from_result(result)
    return result


def _roll_back(pooled: PooledConnection) -> None:
    if not pooled.broken:
        with contextlib.suppress(psycopg.Error):  # then the connection is broken, and is closed
            pooled.dbapi.rollback()  # the driver's own: it also forgets prepared statements of tables that are no more
