"""The jobs of a process as a scope: opened by main after the features, stopped by it when the drain says so."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from service.platform.database import Database
from service.platform.jobs.declare import Job
from service.platform.jobs.statistics import JobStatistics, show_jobs
from service.platform.jobs.upkeep import Upkeep
from service.platform.jobs.worker import Worker
from service.platform.settings import PlatformSettings
from service.platform.telemetry import Metrics
from service.platform.telemetry.tracing import Tracing

OWN = 3  # connections for claims, leases and ends, which no job can take
QUEUE_WAIT = 2.0  # seconds; there is one for each that usually asks


class Jobs:
    """What main has of them: to be told when to stop."""

    def __init__(self, worker: Worker | None) -> None:
        self._worker = worker

    def stop_claiming(self) -> None:
        """Begin no more of them: others do."""
        if self._worker is not None:
            self._worker.stop_claiming()

    async def stop(self, *, within: float) -> None:
        """Give those that run so many seconds, and hand the rest back, no attempt spent; within 2 seconds more."""
        if self._worker is not None:
            await self._worker.stop(within=within)


@asynccontextmanager
async def open_jobs(
    database: Database,
    kinds: Sequence[Job[...]],
    settings: PlatformSettings,
    metrics: Metrics,
    tracing: Tracing | None = None,
) -> AsyncIterator[Jobs]:
    """Run the jobs of these kinds, up to SERVICE_JOBS_CONCURRENCY at once, as long as the scope.

    Where there is none of them nothing is run, and jobs are counted all the same, by requests' connections: what was
    enqueued and never named would wait unseen.
    """
    statistics = JobStatistics(one.name for one in kinds)
    concurrency = settings.jobs_concurrency if kinds else 0
    of_jobs = database.beside(max(concurrency, 1), queue_wait=QUEUE_WAIT)
    own = database.beside(OWN, queue_wait=QUEUE_WAIT) if kinds else database
    worker = Worker(of_jobs, own, kinds, settings, statistics, concurrency=concurrency, tracing=tracing)
    upkeep = Upkeep(worker.ledger, kinds, statistics, age=settings.jobs_retention)
    show_jobs(metrics, statistics, lambda: worker.running, lambda: worker.overdue)
    async with worker.open_slots(), trio.open_nursery() as nursery:
        nursery.start_soon(database.keep_running, upkeep.count)
        nursery.start_soon(upkeep.keep_small, database)
        if concurrency:
            for task in worker.tasks:
                nursery.start_soon(database.keep_running, task)
        yield Jobs(worker if concurrency else None)
        nursery.cancel_scope.cancel()
