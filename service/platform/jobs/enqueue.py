"""Putting jobs into the table, inside a unit: they are committed with it, or not at all."""

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection

from service.platform.database import notify
from service.platform.jobs import store
from service.platform.jobs.claims import IDLE
from service.platform.jobs.declare import ArgumentsWrong, Job
from service.platform.jobs.options import Options
from service.platform.jobs.table import CHANNEL, LATER
from service.platform.telemetry.tracing import current_traceparent


def enqueue[**P](connection: Connection, job: Job[P], /, *args: P.args, **kwargs: P.kwargs) -> int:
    """Let a job wait, and return its id; also `await database.run(enqueue, job, …)` alone.

    Raises ArgumentsWrong for arguments that the job's function does not take.
    """
    if args:
        raise ArgumentsWrong(f"job {job.name}: its arguments are given by their names, not by their places")
    id_ = store.insert(connection, job, job.dump(kwargs), current_traceparent())
    _tell(connection, job.options)
    return id_


def enqueue_many(connection: Connection, job: Job[...], arguments: Iterable[Mapping[str, Any]]) -> None:
    """Let one job wait for each of the arguments, in one statement. Raises ArgumentsWrong, and ValueError for a key."""
    if job.options.key is not None:
        raise ValueError("key: must not be given for many at once, as only one of them would wait")
    if given := [job.dump(one) for one in arguments]:
        store.insert_many(connection, job, given, current_traceparent())
        _tell(connection, job.options)


def _tell(connection: Connection, options: Options) -> None:
    """Let the workers look: for what is due in a moment at when that is, as their next look may be behind it."""
    in_a_moment = options.at is not None or 0 < options.delay < IDLE
    notify(connection, CHANNEL, LATER if in_a_moment else "")
