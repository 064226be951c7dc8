"""The SQL of a job's life, from its claim to its end: plain functions of a Connection; enqueue.py lets one wait.

Times are the database's: no replica's clock decides anything.

Theory of operation. A row is waiting, running, or finished (done, dead, discarded):

    waiting -> running      `claim`: `claim` rises by one, and the lease begins
    running -> done         `finish`: only for the claim that it names
    running -> waiting      `fail`, one failure more; `hand_back` and a lost lease's `rescue`
    running -> dead         `fail` or `rescue`, when no retry is left
    waiting -> discarded    an operator; dead -> waiting and discarded, discarded -> waiting, and running -> discarded
                            where the lease is over, whoever is left to rescue it

What cannot happen, and why.
- Two workers that finish the same claim, or one whose claim was taken from it: each change names id, claim and worker,
  `rescue` ends a claim by making the row waiting, and the next claim has another number. A SQL job's writes are in the
  transaction of `finish`, which finds no row then, raises, and takes them back.
- A worker that ends another's claim after a failover to a server that has not heard of its own, and gives that number
  again, of the claim or of a new job: the worker's name is another.
- A rescue that overwrites a finished job: it looks for running rows whose lease is over, skips those that somebody has
  locked, and a finished one is not running.
- A rescue that waits for what a frozen worker has locked: between its statements such a transaction lasts BRIEF, which
  is less than a lease. The server ends it then.
- An end of other claims that waits for a unit that has enqueued under the key of one and is not committed: that one is
  left for later, as until then nobody knows which of the two waits.
- A job that nobody has begun, and that is lost with an attempt spent, as the answer to the COMMIT of its claim was
  lost: the worker looks for it under its own name, and hands it back.
- A rescue of all that runs, after PostgreSQL itself was away: a lease is over only when the server has been up for as
  long as a lease, in which those that live have extended theirs. After a failover, whose server has been up for long,
  or a cut network: who would rescue has had the database for as long.
- A job that waits for hours because the server's clock was put back: a lease that ends later than any can is over too,
  and a server whose start is yet to come has been up for long enough.
- A rescue of all that runs because the server's clock was put forward, or went on while the machine was asleep: who
  would rescue knows what time it can be there, and by a later one lets those that live extend theirs first. A worker
  that has just begun does not know. What it takes is lost to who had it, and what that one writes is taken back.
- A change that is lost because a job under the same key was waiting: enqueueing locks the waiting row until the
  transaction ends, claims skip locked rows, so the job starts after the change is there to be seen. A running one does
  not keep another from waiting; when it fails, the other stands for it, also when that runs by then.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial, wraps
from typing import Any, Concatenate, NamedTuple

from sqlalchemy import Connection, Row, TextClause, text
from sqlalchemy.exc import DBAPIError

from service.platform.database.sqlstate import LOCK_NOT_AVAILABLE, UNIQUE_VIOLATION, sqlstate_of
from service.platform.jobs.declare import Job
from service.platform.jobs.table import CHANNEL

SLACK = 4  # candidates for each job that is wanted, so that workers that come at once each find some
MOST_ERROR = 500  # characters of an error that are kept
GONE = "was killed, frozen or cut off"
AGAIN = f"{GONE}, as was the one before it"
# Seconds within which a job is begun again whose workers were gone twice in a row. One of those that were beside it may
# end them all: each waits for a moment of its own, or they would be begun together each time, and all be dead with it.
APART = 10.0
_PRIORITIES = "ARRAY[1, 0, -1]"


class ClaimLost(Exception):
    """The job is not this worker's any more: its lease was over and it was rescued, or an operator took it."""


class Claimed(NamedTuple):
    """A job that a worker has for `lease` seconds, unless it extends it."""

    id: int
    kind: str
    arguments: str  # JSON
    claim: int
    failures: int
    key: str
    trace: str | None
    waited: float  # seconds since it was due
    worker: str


class Rescued(NamedTuple):
    """A job whose worker was gone."""

    id: int
    kind: str
    state: str  # what it became: waiting, dead, or done where another stands for it
    failures: int
    error: str


@dataclass(frozen=True, slots=True)
class Outlook:
    """What the next look at the table may have to do, in seconds from now; None is nothing known."""

    ready: bool  # something is due now, though perhaps at its limit
    due: float | None  # the first that waits for its time
    lease: float | None  # the first lease that will be over
    rescued: Sequence[Rescued]
    now: datetime


def brief[**P, T](
    function: Callable[Concatenate[Connection, P], T],
) -> Callable[Concatenate[Connection, P], T]:
    """Return a unit that the server ends soon, within a lease, when its process is gone or a lock is another's."""

    @wraps(function)
    def unit(connection: Connection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        connection.execute(_BRIEFLY)
        return function(connection, *args, **kwargs)

    return unit


BRIEF = 2_000  # milliseconds between two statements of what holds the lock of a job's row
_END_SOON = f"set_config('idle_in_transaction_session_timeout', '{BRIEF}', true)"
# Below a lease, so that the error names the lock, and above the time in which a lease could still be extended.
LOCK_WAIT = 2_500  # milliseconds
_BRIEFLY = text(f"SELECT {_END_SOON}, set_config('lock_timeout', '{LOCK_WAIT}', true)")


def claim(connection: Connection, kinds: Sequence[Job[...]], *, most: int, worker: str, lease: float) -> list[Claimed]:
    """Take up to `most` jobs that are due: the higher priority first, then of each kind in turn, then the older one."""
    rooms = {one.name: most * SLACK for one in kinds}
    if limits := {one.name: one.concurrency for one in kinds if one.concurrency is not None}:
        rooms |= {kind: min(room, most * SLACK) for kind, room in _rooms(connection, limits).items()}
    open_kinds = [kind for kind, room in rooms.items() if room > 0]
    if not open_kinds:
        return []
    values = {
        "kinds": open_kinds,
        "rooms": [rooms[kind] for kind in open_kinds],
        "most": most,
        "worker": worker,
        "lease": lease,
    }
    statement = _claim(_rounded(most * SLACK))
    found = [*connection.execute(statement, values)]
    # Those at the head of a limited kind may be locked: then it is those behind them.
    short = [kind for kind in open_kinds if kind in limits and rooms[kind] > sum(row.kind == kind for row in found)]
    if short and len(found) < most:
        for kind in connection.execute(_STILL_DUE, {"kinds": short}).scalars():
            if (left := min(rooms[kind] - sum(row.kind == kind for row in found), most - len(found))) > 0:
                alone = {"kinds": [kind], "rooms": [most * SLACK], "most": left}
                found += connection.execute(statement, values | alone)
    return [Claimed(*row[2:]) for row in sorted(found, key=_place)]


_FIRST = f"""
    unnest(CAST(:kinds AS text[])) AS kind CROSS JOIN unnest({_PRIORITIES}) AS priority CROSS JOIN LATERAL (
        SELECT run_at FROM job WHERE state = 'waiting' AND job.kind = kind.kind AND job.priority = priority.priority
            AND run_at {{when}} now() ORDER BY run_at LIMIT 1) AS first"""  # noqa: S608  constants
_STILL_DUE = text(f"SELECT DISTINCT kind FROM {_FIRST.format(when='<=')}")  # noqa: S608  constants


def _rounded(count: int) -> int:
    """Return the next power of four, so that there are few different statements to prepare."""
    return int(4 ** math.ceil(math.log(max(count, 4), 4)))


def _rooms(connection: Connection, limits: Mapping[str, int]) -> dict[str, int]:
    """Return how many more of each limited kind may run; 0 while another worker claims that kind.

    The lock first, in a statement of its own: the count then sees what the last holder committed.
    """
    locked = {row.kind for row in connection.execute(_LOCK_KINDS, {"kinds": list(limits)}) if row.locked}
    running = {row.kind: row.running for row in connection.execute(_COUNT_RUNNING, {"kinds": sorted(locked)})}
    return {kind: limit - running.get(kind, 0) if kind in locked else 0 for kind, limit in limits.items()}


_LOCK_KINDS = text("""
    SELECT kind, pg_try_advisory_xact_lock(hashtextextended('job ' || kind, 0)) AS locked
    FROM unnest(CAST(:kinds AS text[])) kind""")
_COUNT_RUNNING = text("""
    SELECT kind, count(*) AS running FROM job
    WHERE state = 'running' AND kind = ANY(CAST(:kinds AS text[])) GROUP BY kind""")


@cache
def _claim(candidates: int) -> TextClause:
    """Return the statement that claims. Each kind and priority is one look into the index, where its due ones begin.

    The limit is written out: with a parameter in its place PostgreSQL expects a tenth of the rows, and sorts them all.
    What makes a job due is asked twice: the second time of the row as it is once it is locked, as another worker may
    have had it in between, and let it wait again for its next attempt.
    """
    return text(f"""
        WITH due AS MATERIALIZED (
            SELECT found.id, found.run_at, priority, kinds.room,
                row_number() OVER (PARTITION BY kinds.kind ORDER BY priority DESC, found.run_at, found.id) AS nth
            FROM unnest(CAST(:kinds AS text[]), CAST(:rooms AS int[])) AS kinds(kind, room)
            CROSS JOIN unnest({_PRIORITIES}) AS priority
            CROSS JOIN LATERAL (
                SELECT id, run_at FROM job
                WHERE state = 'waiting' AND job.kind = kinds.kind AND job.priority = priority.priority
                    AND run_at <= now()
                ORDER BY run_at, id LIMIT {candidates}
            ) AS found
        ), picked AS (
            SELECT job.id, job.run_at, due.nth FROM due JOIN job ON job.id = due.id
            WHERE job.state = 'waiting' AND job.run_at <= now() AND due.nth <= due.room
            ORDER BY due.priority DESC, due.nth, due.run_at
            LIMIT :most FOR UPDATE OF job SKIP LOCKED
        )
        UPDATE job SET state = 'running', claim = claim + 1, worker = :worker,
            leased_until = clock_timestamp() + make_interval(secs => :lease)
        FROM picked WHERE job.id = picked.id
        RETURNING job.priority, picked.nth, job.id, kind, CAST(arguments AS text) AS arguments, claim, failures,
            kind || '-' || job.id || '-' || to_char(enqueued_at AT TIME ZONE 'UTC', 'YYYYMMDD"T"HH24MISSUS') AS key,
            trace, CAST(EXTRACT(epoch FROM now() - picked.run_at) AS float8) AS waited, worker""")  # noqa: S608  constants


def _place(row: Sequence[Any]) -> tuple[int, int, float, int]:
    return -row[0], row[1], -row[-2], row[2]  # priority, nth, waited, id


def finish(connection: Connection, one: Claimed) -> None:
    """End a claim within the caller's transaction. Raises ClaimLost when it is not the caller's any more."""
    if connection.execute(_FINISH, {"id": one.id, "claim": one.claim, "worker": one.worker}).first() is None:
        raise ClaimLost(f"job {one.kind} {one.id}: claim {one.claim} was lost")


def finish_many(connection: Connection, claims: Sequence[Claimed]) -> set[int]:
    """End several claims; return the ids of those that were still held.

    One that has ended so is taken for held: its end was written before, by a COMMIT whose answer was lost.
    """
    return {row.id for row in connection.execute(_FINISH_MANY, _listed(claims))}


def _listed(claims: Sequence[Claimed]) -> dict[str, list[Any]]:
    names = ("id", "claim", "worker")
    return {f"{name}s": [getattr(one, name) for one in claims] for name in names}


_DONE = "state = 'done', leased_until = NULL, finished_at = clock_timestamp(), error = NULL"
_CLAIMED = "job.id = held.id AND job.claim = held.claim AND job.worker = held.worker"
_HELD = f"{_CLAIMED} AND job.state = 'running'"
_UNNEST = (
    "unnest(CAST(:ids AS bigint[]), CAST(:claims AS bigint[]), CAST(:workers AS text[])) AS held(id, claim, worker)"
)
_FINISH = text(f"""
    UPDATE job SET {_DONE} WHERE id = :id AND claim = :claim AND worker = :worker AND state = 'running'
    RETURNING {_END_SOON}""")  # noqa: S608  constants
_FINISH_MANY = text(f"""
    UPDATE job SET {_DONE} FROM {_UNNEST}
    WHERE {_CLAIMED} AND job.state IN ('running', 'done') RETURNING job.id""")  # noqa: S608  constants


def extend(connection: Connection, claims: Sequence[Claimed], *, lease: float) -> set[int]:
    """Extend the leases of claims; return the ids of those that are held.

    A row that its own job has locked, in the last moment before COMMIT, is left as it is, and is still held.
    """
    values = _listed(claims)
    connection.execute(_EXTEND, values | {"lease": lease})
    return {row.id for row in connection.execute(_STILL_HELD, values)}


_EXTEND = text(f"""
    UPDATE job SET leased_until = clock_timestamp() + make_interval(secs => :lease)
    WHERE id IN (SELECT job.id FROM job, {_UNNEST} WHERE {_HELD} FOR UPDATE OF job SKIP LOCKED)""")  # noqa: S608  constants
_STILL_HELD = text(f"SELECT job.id FROM job, {_UNNEST} WHERE {_HELD}")  # noqa: S608  constants


def fail(connection: Connection, one: Claimed, *, error: str, retries: int, pause: float) -> str:
    """End a claim whose attempt has failed; return the state that the job is in then. Raises ClaimLost."""
    connection.execute(_WAIT_LITTLE)
    return _end_once(connection, one, error=error, retries=retries, pause=pause, spent=1)


def hand_back(connection: Connection, one: Claimed, *, pause: float = 0, why: str | None = None) -> str:
    """End a claim as if it had never been: no attempt is spent, and `why` is kept to be looked at. Raises ClaimLost.

    Returns the state that the job is in then: FINISHED if the claim did end it, by a COMMIT whose answer was lost.
    """
    connection.execute(_WAIT_LITTLE)
    state = _end_once(connection, one, error=why, retries=None, pause=pause, spent=0)
    if not pause:
        _tell_others(connection)
    return state


def hand_back_many(connection: Connection, claims: Sequence[Claimed]) -> tuple[set[int], list[Claimed]]:
    """Hand back several claims; return the ids of those that were still held, and those that are to be tried again."""
    held: set[int] = set()

    def end(*some: Claimed) -> None:
        for one in some:
            with suppress(ClaimLost):
                _end_once(connection, one, error=None, retries=None, pause=0, spent=0)
                held.add(one.id)

    connection.execute(_WAIT_LITTLE)
    left: list[Claimed] = []
    if not _ends_now(connection, partial(end, *claims)):  # at once where none has to wait
        held.clear()
        left = [one for one in claims if not _ends_now(connection, partial(end, one))]
    _tell_others(connection)
    return held, left


def hand_back_unknown(connection: Connection, known: Sequence[Claimed], *, worker: str) -> None:
    """Hand back what a worker has, and does not know of: the answer to its claim's COMMIT was lost."""
    if found := connection.execute(_UNKNOWN, _listed(known) | {"worker": worker}).all():
        connection.execute(_WAIT_LITTLE)
        for one in found:
            values = _ending(one, error=None, retries=None, pause=0, spent=0)
            _ends_now(connection, partial(connection.execute, _END, values))
        _tell_others(connection)


_UNKNOWN = text(f"""
    SELECT id, claim, worker FROM job
    WHERE state = 'running' AND worker = :worker AND NOT EXISTS (SELECT FROM {_UNNEST} WHERE {_CLAIMED})
    ORDER BY id FOR UPDATE""")  # noqa: S608  constants


def _tell_others(connection: Connection) -> None:
    """Have the others look at once: within the transaction, as who hands back may be about to end."""
    connection.execute(_NOTIFY, {"channel": CHANNEL})


# COMMIT takes a lock of the whole server then, which another's keeps until it is on the disk, and at the standby: where
# many notify, nothing would be handed back within so little as the end of one claim may wait. NULL is the session's.
_NOTIFY = text("SELECT pg_notify(:channel, ''), set_config('lock_timeout', NULL, true)")


def _end_once(
    connection: Connection, one: Claimed, *, error: str | None, retries: int | None, pause: float, spent: int
) -> str:
    """End a claim, unless it has ended so: its end was written before, by a COMMIT whose answer was lost."""
    values = _ending(one, error=error, retries=retries, pause=pause, spent=spent)
    state: str | None = connection.execute(_END, values).scalar()
    if state is None:
        state = connection.execute(_ENDED, values | {"failures": one.failures}).scalar()
    if state is None:
        raise ClaimLost(f"job {one.id}: claim {one.claim} was lost")
    return state


def _ends_now(connection: Connection, end: Callable[[], object]) -> bool:
    """End some of several claims, and tell whether they are ended: not while another is being enqueued under a key."""
    try:
        with connection.begin_nested():
            end()
    except DBAPIError as error:
        if sqlstate_of(error) not in {LOCK_NOT_AVAILABLE, UNIQUE_VIOLATION}:
            raise
        return False
    return True


# Milliseconds that the end of one claim may keep those of others, and a connection for what is asked: where it would
# have to wait for longer it is refused, and tried again.
LITTLE = 10
_WAIT_LITTLE = text(f"SELECT set_config('lock_timeout', '{LITTLE}', true)")


def _ending(
    one: Claimed | Row[Any], *, error: str | None, retries: int | None, pause: float, spent: int
) -> dict[str, Any]:
    """Return what `_END` takes of a claim, and of how it ends."""
    kept = None if error is None else error[:MOST_ERROR].replace("\0", "")
    claim = {"id": one.id, "claim": one.claim, "worker": one.worker}
    return claim | {"error": kept, "retries": retries, "pause": pause, "spent": spent}


# A rescue leaves another error and one failure more, `finish` the worker's name. Whoever may have claimed the job since
# changes none of these.
FINISHED = "finished"
_ENDED = text(f"""
    SELECT CASE WHEN mine.finished THEN '{FINISHED}' ELSE job.state END
    FROM job CROSS JOIN LATERAL (
        SELECT job.state = 'done' AND job.claim = :claim AND job.worker = :worker) AS mine(finished)
    WHERE job.id = :id AND (mine.finished OR job.failures = :failures + :spent
        AND job.error IS NOT DISTINCT FROM COALESCE(CAST(:error AS text), job.error))""")  # noqa: S608  constants


# A job that another waits for under the same key is over: that one stands for it. So does a later one that runs and has
# the newer arguments: were this one to wait again, it would stand for that one.
WAITS, RUNS_LATER = "state = 'waiting'", "state = 'running' AND twin.id > mine.id"


def twin(which: str) -> str:
    """Return the condition that under the kind and key of the row `mine` there is such another."""
    return f"EXISTS (SELECT FROM job twin WHERE twin.kind = mine.kind AND twin.key = mine.key AND twin.{which})"


_END = text(f"""
    UPDATE job SET
        state = next.state, claim = job.claim, leased_until = NULL, worker = NULL,
        failures = job.failures + next.spent, error = COALESCE(CAST(:error AS text), job.error),
        run_at = CASE WHEN :pause > 0 THEN clock_timestamp() + make_interval(secs => :pause) ELSE job.run_at END,
        finished_at = CASE WHEN next.state <> 'waiting' THEN clock_timestamp() END
    FROM (
        SELECT mine.id, mine.spent, CASE
            WHEN mine.failures + mine.spent > CAST(:retries AS int) THEN 'dead'
            WHEN {twin(WAITS)} OR mine.key IS NOT NULL AND {twin(RUNS_LATER)} THEN 'done'
            ELSE 'waiting' END AS state
        FROM (
            SELECT id, kind, key, failures, CAST(:spent AS bigint) AS spent FROM job
            WHERE id = :id AND claim = :claim AND worker IS NOT DISTINCT FROM CAST(:worker AS text)
                AND state = 'running' FOR UPDATE
        ) AS mine
    ) AS next
    WHERE job.id = next.id
    RETURNING job.state""")  # noqa: S608  constants


def look(
    connection: Connection, kinds: Sequence[Job[...]], *, lease: float, rescuing: bool = True, until: float = math.inf
) -> Outlook:
    """Rescue what no worker holds any more, and tell when to look again; `until` is as for `rescue`."""
    retries = {one.name: one.retries for one in kinds}
    rescued = rescue(connection, retries, lease=lease, until=until) if rescuing else []
    row = connection.execute(_OUTLOOK, {"kinds": [one.name for one in kinds]}).one()
    return Outlook(ready=row.ready, due=row.due, lease=row.lease, rescued=rescued, now=row.now)


def rescue(
    connection: Connection, retries: Mapping[str, int], *, lease: float, until: float = math.inf
) -> list[Rescued]:
    """End the claims whose lease is over, an attempt spent; return whose.

    None, if it is later than `until` by the server's clock, in seconds since 1970: it was put forward.
    A job of a kind that this release does not know is rescued too: it waits for one that does.
    It may begin again at once; from the second time in a row on, within APART.
    """
    rescued: list[Rescued] = []
    if lost := connection.execute(_LOST, {"lease": lease, "until": until}).all():
        connection.execute(_WAIT_LITTLE)
    for row in lost:
        _ends_now(connection, partial(_rescue_one, connection, row, retries.get(row.kind), rescued))
    return rescued


def _rescue_one(connection: Connection, row: Row[Any], retries: int | None, rescued: list[Rescued]) -> None:
    again = row.failures > 0 and GONE in (row.error or "")  # an operator's retry begins anew
    why = f"worker {row.worker} {AGAIN if again else GONE}"
    pause = random.uniform(0, APART) if again else 0  # noqa: S311  spreads jobs, keeps no secret
    values = _ending(row, error=why, retries=retries, pause=pause, spent=1)
    state = connection.execute(_END, values).scalar_one()
    rescued.append(Rescued(row.id, row.kind, state, row.failures + 1, why))


_LOST = text("""
    SELECT id, kind, claim, worker, failures, error FROM job
    WHERE state = 'running'
        AND leased_until NOT BETWEEN clock_timestamp() AND clock_timestamp() + 2 * make_interval(secs => :lease)
        AND pg_postmaster_start_time() NOT BETWEEN clock_timestamp() - make_interval(secs => :lease)
            AND clock_timestamp() + make_interval(secs => :lease)
        AND clock_timestamp() <= to_timestamp(:until)
    ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED""")
_OUTLOOK = text(f"""
    SELECT clock_timestamp() AS now, EXISTS (SELECT FROM {_FIRST.format(when="<=")}) AS ready,
        (SELECT CAST(EXTRACT(epoch FROM min(first.run_at) - clock_timestamp()) AS float8)
            FROM {_FIRST.format(when=">")}) AS due,
        (SELECT CAST(EXTRACT(epoch FROM min(leased_until) - clock_timestamp()) AS float8)
            FROM job WHERE state = 'running') AS lease""")  # noqa: S608  constants
