"""Counts the table of jobs for the metrics, and takes away what was finished long ago."""

from collections.abc import Sequence

import structlog
import trio

from service.platform.database import Database
from service.platform.jobs import store
from service.platform.jobs.declare import Job
from service.platform.jobs.ledger import Ledger
from service.platform.jobs.statistics import JobStatistics

COUNT_EVERY, SWEEP_EVERY = 15.0, 60.0  # seconds
PAUSE = 0.75  # seconds between two sweeps when there is more than fits into one

log = structlog.get_logger(__name__)


class Upkeep:
    """`kinds` are those that features here name, `age` the seconds that a finished job is kept."""

    def __init__(self, ledger: Ledger, kinds: Sequence[Job[...]], statistics: JobStatistics, *, age: float) -> None:
        self._ledger = ledger
        self._known = {one.name for one in kinds}
        self._statistics = statistics
        self._age = age

    async def count(self) -> None:
        while True:
            self._statistics.table = await self._ledger.ask(store.counts)
            self._tell_unknown()
            await trio.sleep(COUNT_EVERY)

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
        while await self._ledger.ask(store.sweep, age=self._age):  # noqa: ASYNC110  more than fit into one
            await trio.sleep(PAUSE)
