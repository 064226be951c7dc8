"""The SQL of jobs for who looks after them: lists, one job, and what may be done with it, or with all of a kind.

What workers do to a row is in store.py.
"""

from datetime import datetime

from sqlalchemy import Connection, RowMapping, text
from sqlalchemy.exc import IntegrityError

from service.platform.database import notify
from service.platform.errors import Conflict, NotFound
from service.platform.jobs.store import RUNS_LATER, WAITS, twin
from service.platform.jobs.table import CHANNEL

MOST_CHANGED = 1_000  # jobs that one unit changes
COLUMNS = """id, kind, state, priority, run_at, failures, claim, worker, leased_until, key, turn, error, enqueued_at,
    finished_at"""


def select_some(
    connection: Connection, *, state: str | None, kind: str | None, most: int, before: int
) -> list[RowMapping]:
    """Return jobs of a state or a kind, the newest first, with ids below `before`."""
    values = {"state": state, "kind": kind, "most": most, "before": before}
    return list(connection.execute(_SELECT_SOME, values).mappings())


_SELECT_SOME = text(f"""
    SELECT {COLUMNS} FROM job
    WHERE id < :before AND (CAST(:state AS text) IS NULL OR state = :state)
        AND (CAST(:kind AS text) IS NULL OR kind = :kind)
    ORDER BY id DESC LIMIT :most""")  # noqa: S608  constants


def select_one(connection: Connection, id: int) -> RowMapping:  # noqa: A002  the column's name
    """Return a job with its arguments. Raises NotFound."""
    query = text(f"SELECT {COLUMNS}, arguments FROM job WHERE id = :id")  # noqa: S608  constants
    return _found(connection.execute(query, {"id": id}).mappings().one_or_none(), id)


_AGAIN = "state = 'waiting', failures = 0, run_at = now(), finished_at = NULL"
_DEAD = "state = 'dead' AND kind = :kind AND finished_at <= :until"
_NEVER = "state = 'discarded', finished_at = clock_timestamp(), leased_until = NULL"


def retry(connection: Connection, id: int) -> RowMapping:  # noqa: A002
    """Let a dead or discarded job wait again, with all its retries.

    Raises NotFound, and Conflict when another waits under its key, or a later one runs: that one stands for it.
    """
    try:
        with connection.begin_nested():
            changed = _change(connection, id, _AGAIN, "dead discarded")
    except IntegrityError:
        raise Conflict(f"another job waits under the key of job {id}, and stands for it") from None
    if connection.execute(_LATER_RUNS, {"id": id}).scalar():  # only now, as until then it might have waited yet
        raise Conflict(f"a later job runs under the key of job {id}, and stands for it")
    notify(connection, CHANNEL)
    return changed


_LATER_RUNS = text(f"SELECT {twin(RUNS_LATER)} FROM job mine WHERE id = :id")  # noqa: S608  constants


def select_now(connection: Connection) -> datetime:
    now: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return now


def retry_dead(connection: Connection, *, kind: str, until: datetime) -> int:
    """Let up to MOST_CHANGED jobs of a kind that were dead by a moment wait again, with all retries; return how many.

    Under a key one waits, the newest: those that it stands for stay dead, also when it has run before the next portion.
    Raises Conflict when one is enqueued meanwhile under the key of a dead one.
    """
    query = text(f"""
        UPDATE job SET {_AGAIN} WHERE state = 'dead' AND id IN (
            SELECT id FROM job mine WHERE {_DEAD} AND {_STANDS_ALONE} ORDER BY id LIMIT {MOST_CHANGED})""")  # noqa: S608  constants
    try:
        with connection.begin_nested():
            changed = connection.execute(query, {"kind": kind, "until": until}).rowcount
    except IntegrityError:
        raise Conflict(f"another job was enqueued under the key of one of kind {kind}; repeat it") from None
    notify(connection, CHANNEL)
    return changed


# Each has an index of its own.
_STANDS_ALONE = " AND ".join(
    f"NOT {twin(which)}"
    for which in (
        WAITS,
        RUNS_LATER,
        "state = 'dead' AND twin.id > mine.id",
        "state IN ('done', 'discarded') AND twin.finished_at > :until AND twin.id > mine.id",
    )
)


def discard(connection: Connection, id: int) -> RowMapping:  # noqa: A002
    """End a job that waits or is dead, or that nobody holds any more: its worker is gone. Raises NotFound."""
    return _change(connection, id, _NEVER, "waiting dead", "OR state = 'running' AND leased_until < clock_timestamp()")


def discard_dead(connection: Connection, *, kind: str, until: datetime) -> int:
    """End up to MOST_CHANGED jobs of a kind that were dead by a moment; return how many."""
    query = text(f"""
        UPDATE job SET {_NEVER} WHERE state = 'dead' AND id IN (
            SELECT id FROM job WHERE {_DEAD} ORDER BY id LIMIT {MOST_CHANGED})""")  # noqa: S608  constants
    return connection.execute(query, {"kind": kind, "until": until}).rowcount


def discard_waiting(connection: Connection, *, kind: str, until: datetime) -> int:
    """End up to MOST_CHANGED jobs of a kind that wait, and were enqueued by a moment; return how many.

    In the order of their index, as there may be many; those that somebody is claiming or enqueues anew are left.
    """
    query = text(f"""
        WITH waits AS MATERIALIZED (
            SELECT id FROM job WHERE state = 'waiting' AND kind = :kind AND enqueued_at <= :until
            ORDER BY priority, run_at, id LIMIT {MOST_CHANGED} FOR UPDATE SKIP LOCKED)
        UPDATE job SET {_NEVER} FROM waits WHERE job.id = waits.id""")  # noqa: S608  constants
    return connection.execute(query, {"kind": kind, "until": until}).rowcount


def run_now(connection: Connection, id: int) -> RowMapping:  # noqa: A002
    """Make a job due that waits for its time. Raises NotFound."""
    changed = _change(connection, id, "run_at = LEAST(run_at, now())", "waiting")
    notify(connection, CHANNEL)
    return changed


def _change(connection: Connection, id: int, change: str, states: str, more: str = "") -> RowMapping:  # noqa: A002
    query = text(f"""
        UPDATE job SET {change} WHERE id = :id AND (state = ANY(:states) {more}) RETURNING {COLUMNS}, arguments""")  # noqa: S608  constants
    return _found(connection.execute(query, {"id": id, "states": states.split()}).mappings().one_or_none(), id, states)


def _found(row: RowMapping | None, id: int, states: str = "") -> RowMapping:  # noqa: A002
    if row is None:
        which = f" that is {' or '.join(states.split())}" if states else ""
        raise NotFound(f"there is no job {id}{which}")
    return row
