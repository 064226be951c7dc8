"""Looks at the table of jobs for the metrics, and takes away what was finished long ago."""

from collections.abc import Mapping, Sequence

import structlog
import trio
from sqlalchemy import Connection, text

from service.platform.database import Database
from service.platform.jobs.declare import Job
from service.platform.jobs.ledger import Ledger
from service.platform.jobs.statistics import Count, JobStatistics, counts, rescued_again
from service.platform.jobs.turns import Turns

COUNT_EVERY, SWEEP_EVERY = 15.0, 60.0  # seconds
PAUSE = 0.75  # seconds between two sweeps when there is more than fits into one

log = structlog.get_logger(__name__)


class Upkeep:
    """`kinds` are those that features here name, `age` the seconds that a finished job is kept."""

    def __init__(self, ledger: Ledger, kinds: Sequence[Job[...]], statistics: JobStatistics, *, age: float) -> None:
        self._ledger = ledger
        self._known = {one.name for one in kinds}
        self._turns = Turns(kinds)
        self._statistics = statistics
        self._age = age

    async def count(self) -> None:
        while True:
            seen = self._statistics
            seen.table, seen.rescued_again, seen.missed = await self._ledger.ask(self._look)
            self._tell_unknown()
            await trio.sleep(COUNT_EVERY)

    def _look(self, connection: Connection) -> tuple[Sequence[Count], Mapping[str, int], Mapping[str, float]]:
        return counts(connection), rescued_again(connection), self._turns.missed(connection)

    def _tell_unknown(self) -> None:
        """Tell once of each kind that is due and that no feature here names; who enqueues cannot know."""
        for one in self._statistics.table:
            if one.state == "waiting" and one.due and one.kind not in self._known:
                self._known.add(one.kind)
                log.warning("jobs wait that this release does not know", kind=one.kind, count=one.due,
                            hint="a feature names them in `jobs`, or another release enqueued them")  # fmt: skip

    async def keep_small(self, database: Database) -> None:
        """Sweep for ever; what fails is done again soon, and not a minute later."""
        while True:
            await trio.sleep(SWEEP_EVERY)
            await database.keep_running(self.sweep)

    async def sweep(self) -> None:
        while await self._ledger.ask(sweep, age=self._age):  # noqa: ASYNC110  more than fit into one
            await trio.sleep(PAUSE)


def sweep(connection: Connection, *, age: float) -> int:
    """Delete up to 1,000 jobs that were done or discarded `age` seconds ago; return how many.

    The latest turn of a schedule stays: it is how the next one is known to be the next. So do those that are less than
    `age` before it: by them it is known what has run, should the clock be put back.
    """
    return connection.execute(_SWEEP, {"age": age}).rowcount


_SWEEP = text("""
    DELETE FROM job WHERE id IN (
        SELECT id FROM job
        WHERE state IN ('done', 'discarded') AND finished_at < now() - make_interval(secs => :age)
            AND (turn IS NULL OR turn + make_interval(secs => :age)
                < (SELECT max(later.turn) FROM job later WHERE later.kind = job.kind))
        ORDER BY finished_at LIMIT 1000 FOR UPDATE SKIP LOCKED)""")
