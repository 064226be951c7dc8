"""`python -m bench.apps.jobs_pgqueuer URL POSTMASTER TASK`: the same jobs by pgqueuer with asyncpg, on uvloop."""

import asyncio
import logging
import sys
from functools import partial

import asyncpg
import uvloop
from pgqueuer import PgQueuer, Queries
from pgqueuer.db import AsyncpgPoolDriver
from pgqueuer.models import Job

from bench.apps.jobs_task import CONCURRENCY, PORTION, Task, numbers

task = Task()
BATCHES = {"pgqueuer": 10, "pgqueuer, batches of 100": 100}  # jobs that it takes at once; 10 is its own choice


def queue(driver: AsyncpgPoolDriver) -> PgQueuer:
    queuer = PgQueuer(driver)

    @queuer.entrypoint("empty")
    async def empty(job: Job) -> None:
        assert job.payload is not None
        task.note(int(job.payload))

    return queuer


async def enqueue_many(driver: AsyncpgPoolDriver, count: int) -> None:
    for some in numbers(count, PORTION):
        names, none = ["empty"] * len(some), [0] * len(some)
        await Queries(driver).enqueue(names, [b"%d" % number for number in some], none)


async def enqueue_singly(driver: AsyncpgPoolDriver, count: int) -> None:
    queries = Queries(driver)

    async def some(mine: range) -> None:
        for number in mine:
            await queries.enqueue("empty", b"%d" % number, 0)

    await asyncio.gather(*(some(range(first, count, CONCURRENCY)) for first in range(CONCURRENCY)))


async def main() -> None:
    async with asyncpg.create_pool(task.conninfo, min_size=2, max_size=CONCURRENCY + 2) as pool:
        driver = AsyncpgPoolDriver(pool)
        await Queries(driver).install()
        queuer = queue(driver)
        worker = asyncio.create_task(queuer.run(batch_size=BATCHES[task.kind]))
        await task.perform(
            asyncio.sleep,
            many=partial(enqueue_many, driver),
            singly=partial(enqueue_singly, driver),
            one=lambda number: Queries(driver).enqueue("empty", b"%d" % number, 0),
        )
        queuer.shutdown.set()
        await worker


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    task.read(sys.argv)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    task.tell()
