"""What a process writes about its jobs: over connections that no job can take, and however long the database is away.

What is still to be written when the database is away is written when it is back: the job stays held until then, so that
its lease is extended first, as a rescue waits for the time of a lease after a server's start.
"""

from collections.abc import Callable, Sequence, Set
from functools import partial
from typing import Concatenate

import structlog
import trio
from sqlalchemy import Connection

from service.platform.database import DATABASE_ERRORS, Database
from service.platform.errors import DatabaseAway
from service.platform.jobs import store
from service.platform.jobs.declare import Job, StoredArgumentsWrong
from service.platform.jobs.faults import describe, is_told, may_be_its_own
from service.platform.jobs.running import LEASE, Running, Why
from service.platform.jobs.statistics import JobStatistics
from service.platform.jobs.store import Claimed, ClaimLost

MISFITS = 8  # retries at least of a job whose arguments do not fit: some four minutes
# Ends of one job by a lost connection that this process takes for the database's own trouble. A job that ends its
# connection itself, or the server with it, would have no other end.
TOLERATED = 8
MOST_COUNTED = 1_000  # jobs for which that is counted, those of late
PAUSES = (0.1, 0.25, 0.5, 1.0)  # seconds between two tries to write an outcome, the last again and again

log = structlog.get_logger(__name__)


class Ledger:
    """`written` is called when a row was changed: there may be something to claim; `due` with the pause of a repeat.

    Outcomes are returned in a word.
    """

    def __init__(
        self,
        own: Database,
        statistics: JobStatistics,
        *,
        written: Callable[[], None],
        due: Callable[[float], None],
    ) -> None:
        self.own = own
        self._statistics = statistics
        self._written = written
        self._due = due
        self._kept: dict[int, int] = {}  # by a job's id, how often the database kept it from its end

    async def ask[**P, T](
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit about jobs; a server that does not answer within a lease is away."""
        try:
            with trio.fail_after(LEASE):
                return await self.own.run(store.brief(function), *args, **kwargs)
        except trio.TooSlowError as error:
            raise DatabaseAway(f"PostgreSQL did not answer within {LEASE:g} s") from error

    async def insist[**P, T](
        self, function: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a unit about jobs, however long the database is away."""
        tries = 0
        while True:
            try:
                value = await self.ask(function, *args, **kwargs)
            except DATABASE_ERRORS:
                await trio.sleep(PAUSES[min(tries, len(PAUSES) - 1)])
                tries += 1
            else:
                self._written()
                return value

    async def cancelled(self, running: Running, kind: Job[...]) -> str:
        """Write that an attempt was cancelled: by its own deadline it has failed, else no attempt is spent."""
        if running.reason() is Why.DEADLINE:
            return await self.failed(running.claimed, kind, f"the deadline of {kind.deadline:g} s is over", None)
        if running.reason() is Why.LEASE:
            log.warning("job cut off", kind=kind.name, id=running.claimed.id)
        return await self._end(running.claimed, store.hand_back, "handed back")

    async def kept_from(self, one: Claimed, kind: Job[...], error: BaseException) -> str:
        """Hand back a job that the database had no room for now; what it may have done itself, only so often."""
        why = describe(error)
        if may_be_its_own(error) and self._count_kept(one) > TOLERATED:
            return await self.failed(one, kind, why, error)
        pause = kind.pause(1)
        outcome = await self._end(one, partial(store.hand_back, pause=pause, why=why), "handed back", pause)
        if outcome == "handed back":  # else it was done, or is another's
            log.warning("job handed back", kind=kind.name, id=one.id, error=why, again_in=round(pause, 1))
        return outcome

    def _count_kept(self, one: Claimed) -> int:
        times = self._kept.pop(one.id, 0) + 1
        while len(self._kept) >= MOST_COUNTED:
            del self._kept[next(iter(self._kept))]
        self._kept[one.id] = times
        return times

    async def failed(self, one: Claimed, kind: Job[...], why: str, error: BaseException | None) -> str:
        # What was never begun may be another release's: it is repeated through a rollout, whatever its retries.
        retries = max(kind.retries, MISFITS) if isinstance(error, StoredArgumentsWrong) else kind.retries
        failures = one.failures + 1
        dead, pause = failures > retries, kind.pause(failures)
        tell = log.error if dead else log.warning
        again = None if dead else round(pause, 1)
        tell("job dead" if dead else "job failed", kind=kind.name, id=one.id, attempt=failures, error=why,
             again_in=again, exc_info=None if error is None or is_told(error) else error)  # fmt: skip
        fail = partial(store.fail, error=why, retries=retries, pause=pause)
        return await self._end(one, fail, "dead" if dead else "failed", 0 if dead else pause)

    async def hand_back(self, claims: Sequence[Claimed]) -> None:
        """Hand back what was never begun."""
        while True:
            held, left = await self.insist(store.hand_back_many, claims)
            self.note_lost([one for one in claims if one not in left], held)
            if not left:
                break
            claims = left
            await trio.sleep(PAUSES[0])

    def note_lost(self, claims: Sequence[Claimed], held: Set[int]) -> None:
        """Note those of the claims whose jobs were not held any more when their end was written."""
        for one in claims:
            if one.id not in held:
                self.lost(one)

    def lost(self, one: Claimed) -> str:
        """Note that a claim was taken from this process; the job is another's."""
        self._statistics.lost[one.kind] += 1
        log.warning("job lost", kind=one.kind, id=one.id, claim=one.claim)
        return "lost"

    async def _end(
        self, one: Claimed, change: Callable[[Connection, Claimed], str], outcome: str, pause: float = 0
    ) -> str:
        try:
            state = await self.insist(change, one)
        except ClaimLost:
            return self.lost(one)
        if state == store.FINISHED:
            return "done"
        if pause:
            self._due(pause)
        return outcome
