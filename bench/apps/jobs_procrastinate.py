"""`python -m bench.apps.jobs_procrastinate URL POSTMASTER TASK`: the same jobs by procrastinate, on uvloop."""

import asyncio
import logging
import sys

import procrastinate
import uvloop

from bench.apps.jobs_task import CONCURRENCY, PORTION, Task, numbers

task = Task()
task.read(sys.argv)
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=task.conninfo, max_size=CONCURRENCY + 2))


@app.task(name="empty")
async def empty(number: int) -> None:
    task.note(number)


async def enqueue_many(count: int) -> None:
    for some in numbers(count, PORTION):
        await empty.batch_defer_async(*({"number": number} for number in some))


async def enqueue_singly(count: int) -> None:
    async def some(mine: range) -> None:
        for number in mine:
            await empty.defer_async(number=number)

    await asyncio.gather(*(some(range(first, count, CONCURRENCY)) for first in range(CONCURRENCY)))


async def main() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        worker = asyncio.create_task(app.run_worker_async(concurrency=CONCURRENCY, install_signal_handlers=False))
        await task.perform(
            asyncio.sleep,
            many=enqueue_many,
            singly=enqueue_singly,
            one=lambda number: empty.defer_async(number=number),
        )
        task.tell()
        worker.cancel()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
