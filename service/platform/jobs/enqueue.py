"""Putting jobs into the table, inside a unit: they are committed with it, or not at all."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from service.platform.database import notify
from service.platform.jobs.declare import ArgumentsWrong, Job
from service.platform.jobs.options import Options
from service.platform.jobs.table import CHANNEL, IDLE, LATER
from service.platform.telemetry.tracing import current_traceparent


def enqueue[**P](connection: Connection, job: Job[P], /, *args: P.args, **kwargs: P.kwargs) -> int:
    """Let a job wait, and return its id; also `await database.run(enqueue, job, …)` alone.

    Raises ArgumentsWrong for arguments that the job's function does not take.
    """
    if args:
        raise ArgumentsWrong(f"job {job.name}: its arguments are given by their names, not by their places")
    id_ = insert(connection, job, job.dump(kwargs), current_traceparent())
    _tell(connection, job.options)
    return id_


def enqueue_many(connection: Connection, job: Job[...], arguments: Iterable[Mapping[str, Any]]) -> None:
    """Let one job wait for each of the arguments, in one statement. Raises ArgumentsWrong, and ValueError for a key."""
    if job.options.key is not None:
        raise ValueError("key: must not be given for many at once, as only one of them would wait")
    if given := [job.dump(one) for one in arguments]:
        insert_many(connection, job, given, current_traceparent())
        _tell(connection, job.options)


def _tell(connection: Connection, options: Options) -> None:
    """Let the workers look: for what is due in a moment at when that is, as their next look may be behind it."""
    in_a_moment = options.at is not None or 0 < options.delay < IDLE
    notify(connection, CHANNEL, LATER if in_a_moment else "")


def insert(connection: Connection, job: Job[...], arguments: str, trace: str | None) -> int:
    """Enqueue one, and return its id; under a key that waits, that one's."""
    options = job.options
    values = {
        "kind": job.name,
        "arguments": arguments,
        "priority": options.rank,
        "delay": options.delay,
        "at": options.at,
        "key": options.key,
        "trace": trace,
    }
    return int(connection.execute(_INSERT, values).scalar_one())


def insert_many(connection: Connection, job: Job[...], arguments: Sequence[str], trace: str | None) -> None:
    options = job.options
    values = {
        "kind": job.name,
        "arguments": list(arguments),
        "priority": options.rank,
        "delay": options.delay,
        "at": options.at,
        "trace": trace,
    }
    connection.execute(_INSERT_MANY, values)


_RUN_AT = "COALESCE(CAST(:at AS timestamptz), now() + make_interval(secs => :delay))"
_INSERT = text(f"""
    INSERT INTO job AS waiting (kind, arguments, priority, run_at, key, trace)
    VALUES (:kind, CAST(:arguments AS jsonb), :priority, {_RUN_AT}, :key, :trace)
    ON CONFLICT (kind, key) WHERE state = 'waiting' AND key IS NOT NULL
    DO UPDATE SET arguments = excluded.arguments, run_at = LEAST(waiting.run_at, excluded.run_at),
        priority = GREATEST(waiting.priority, excluded.priority),
        -- A new one to those outside, by `context.key`, if they may have heard of the one before.
        enqueued_at = CASE WHEN waiting.claim > 0 THEN excluded.enqueued_at ELSE waiting.enqueued_at END
    RETURNING id""")  # noqa: S608  constants
_INSERT_MANY = text(f"""
    INSERT INTO job (kind, arguments, priority, run_at, trace)
    SELECT :kind, CAST(one AS jsonb), :priority, {_RUN_AT}, :trace FROM unnest(CAST(:arguments AS text[])) one""")  # noqa: S608  constants


def take_turn(connection: Connection, job: Job[...], turn: datetime, *, age: float) -> bool:
    """Let the turn of a schedule wait, once in the whole cluster; return whether the table knows that turn then.

    A schedule that was never seen begins with its next turn. While one turn is unfinished no other comes; of those that
    were missed meanwhile, and of those missed while nothing ran, the latest is made up for. The clock may have been
    ahead when the newest was taken: one before it comes all the same, unless it was longer ago than the `age`, in
    seconds, for which turns are kept, as it may have run then.
    """
    values = {"kind": job.name, "turn": turn, "age": age}
    newest: datetime | None
    newest, is_over = connection.execute(_NEWEST_TURN, values).one_or_none() or (None, False)
    if is_over:
        return True
    if newest is not None and connection.execute(_UNFINISHED, {"kind": job.name}).scalar():
        return False
    arguments = job.dump_turn(turn)
    state = "waiting" if newest is not None else "done"
    connection.execute(_INSERT_TURN, {"kind": job.name, "arguments": arguments, "turn": turn, "state": state})
    return True


_NEWEST_TURN = text("""
    SELECT turn, turn >= :turn AND (turn > CAST(:turn AS timestamptz) + make_interval(secs => :age)
        OR EXISTS (SELECT FROM job taken WHERE taken.kind = :kind AND taken.turn = :turn)) AS is_over
    FROM job WHERE kind = :kind AND turn IS NOT NULL ORDER BY turn DESC LIMIT 1""")
_UNFINISHED = text("""
    SELECT EXISTS (SELECT FROM job WHERE kind = :kind AND state = 'waiting' AND turn IS NOT NULL)
        OR EXISTS (SELECT FROM job WHERE kind = :kind AND state = 'running' AND turn IS NOT NULL)""")
_INSERT_TURN = text("""
    INSERT INTO job (kind, arguments, turn, run_at, state, finished_at)
    VALUES (:kind, CAST(:arguments AS jsonb), :turn, :turn, :state, CASE WHEN :state = 'done' THEN now() END)
    ON CONFLICT (kind, turn) WHERE turn IS NOT NULL DO NOTHING""")
