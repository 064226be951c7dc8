"""`python -m bench.apps.jobs_ours URL POSTMASTER TASK`: empty jobs of ours, as a process that only works runs them."""

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import structlog
import trio
from sqlalchemy import Connection

from bench.apps.jobs_task import CONCURRENCY, PORTION, Task, numbers
from service.platform.database import Database, open_database
from service.platform.database.migrate import migrate
from service.platform.jobs import Job, JobContext, enqueue, enqueue_many, job, open_jobs
from service.platform.process.one_cpu import one_cpu
from service.platform.settings import PlatformSettings
from service.platform.telemetry import Metrics

task = Task()


@job()
async def empty(context: JobContext, *, number: int) -> None:
    del context
    task.note(number)


@job(name="empty_sql")
def empty_sql(connection: Connection, *, number: int) -> None:
    del connection
    task.note(number)


KINDS = {"ours": empty, "ours, SQL": empty_sql}


@asynccontextmanager
async def working(database: Database, settings: PlatformSettings) -> AsyncIterator[None]:
    """Run jobs for the length of the block, and let those that run end."""
    async with open_jobs(database, (empty, empty_sql), settings, Metrics()) as jobs:
        yield
        await jobs.stop(within=10)


async def enqueue_many_of(database: Database, kind: Job[...], count: int) -> None:
    for some in numbers(count, PORTION):
        await database.run(enqueue_many, kind, [{"number": number} for number in some])


async def enqueue_singly(database: Database, kind: Job[...], count: int) -> None:
    async def some(mine: range) -> None:
        for number in mine:
            await database.run(enqueue, kind, number=number)

    async with trio.open_nursery() as nursery:
        for first in range(CONCURRENCY):
            nursery.start_soon(some, range(first, count, CONCURRENCY))


async def main() -> None:
    settings = PlatformSettings(
        database_url=task.url, jobs_concurrency=CONCURRENCY, database_connections=CONCURRENCY, database_queue_wait=60
    )
    kind = KINDS[task.kind]
    async with open_database(settings) as database, working(database, settings):
        await task.perform(
            trio.sleep,
            many=partial(enqueue_many_of, database, kind),
            singly=partial(enqueue_singly, database, kind),
            one=lambda number: database.run(enqueue, kind, number=number),
        )


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    task.read(sys.argv)
    migrate(PlatformSettings(database_url=task.url), wait=10)
    with one_cpu():
        trio.run(main)
    task.tell()
