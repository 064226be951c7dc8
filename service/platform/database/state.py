"""Reading the schema's state, the one row that migrations write: the only place that does.

Over libpq for the health look and the doctor, and over SQLAlchemy for `migrate`, which holds its connection anyway.
"""

from typing import Any

import psycopg
from psycopg.pq.abc import PGconn
from sqlalchemy import Connection

from service.platform.database.schema import STATE_TABLE
from service.platform.database.wire import execute

type State = tuple[str | None, str | None]  # revision and serves_from; nothing when nothing was ever migrated

NOTHING: State = (None, None)
_SELECT = f"SELECT revision, serves_from FROM {STATE_TABLE}"  # noqa: S608  a constant


async def read_state(pgconn: PGconn) -> State:
    """Return the state, by a connection that Trio drives. Raises psycopg.Error, save for a missing table."""
    try:
        result = await execute(pgconn, _SELECT)
    except psycopg.errors.UndefinedTable:
        return NOTHING
    if not result.ntuples:
        return NOTHING
    revision, serves_from = result.get_value(0, 0), result.get_value(0, 1)
    return _text(revision), _text(serves_from)


def select_state(connection: Connection) -> State:
    """Return the state, within the caller's transaction. Blocks."""
    if connection.exec_driver_sql(f"SELECT to_regclass('{STATE_TABLE}')").scalar() is None:
        return NOTHING
    row: Any = connection.exec_driver_sql(_SELECT).one_or_none()
    return (row.revision, row.serves_from) if row else NOTHING


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
