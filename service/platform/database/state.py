"""Reading the schema's state, the one row that migrations write: the only place that does.

Over libpq for the health look and the doctor, and over SQLAlchemy for `migrate`, which holds its connection anyway.
"""

import json
from collections.abc import Set
from typing import Any, NamedTuple

import psycopg
from psycopg.pq.abc import PGconn
from sqlalchemy import Connection

from service.platform.database.schema import STATE_TABLE
from service.platform.database.wire import execute


class State(NamedTuple):
    """What the row says; nothing when nothing was ever migrated."""

    revision: str | None = None
    serves_from: str | None = None
    applied: Set[str] | None = None  # nothing also where an older version wrote it, which had no such column


NOTHING = State()
_SELECT = f"SELECT revision, serves_from, to_jsonb({STATE_TABLE}) ->> 'applied' FROM {STATE_TABLE}"  # noqa: S608  a constant


async def read_state(pgconn: PGconn) -> State:
    """Return the state, by a connection that Trio drives. Raises psycopg.Error, save for a missing table."""
    try:
        result = await execute(pgconn, _SELECT)
    except psycopg.errors.UndefinedTable:
        return NOTHING
    if not result.ntuples:
        return NOTHING
    return _state(*(_text(result.get_value(0, column)) for column in range(3)))


def select_state(connection: Connection) -> State:
    """Return the state, within the caller's transaction. Blocks."""
    if connection.exec_driver_sql(f"SELECT to_regclass('{STATE_TABLE}')").scalar() is None:
        return NOTHING
    row: Any = connection.exec_driver_sql(_SELECT).one_or_none()
    return _state(*row) if row else NOTHING


def _state(revision: str | None, serves_from: str | None, applied: str | None) -> State:
    known = None if applied is None else json.loads(applied)
    return State(revision, serves_from, known if known is None else frozenset(known))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
