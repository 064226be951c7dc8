"""What a unit of work costs its client in CPU, against SQLAlchemy-asyncio with asyncpg on uvloop; Core on both sides.

`python -m bench.database`: blocks of units in turn, the same SQL on the same server, the medians of the pairs' ratios.
CPU is the process's, all threads; the server's is its own. A third side is ours without cancellation, for its price; a
fourth the same as a statement on no thread.
"""

import asyncio
import gc
import logging
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import structlog
import trio
from sqlalchemy import BigInteger, Column, Connection, MetaData, Table, insert, make_url, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from service.platform.database import Database, Statement, open_database, open_embedded
from service.platform.database.unit import Unit
from service.platform.database.work import BEGIN, COMMIT
from service.platform.process.one_cpu import one_cpu
from service.platform.settings import PlatformSettings

CONNECTIONS, TASKS = 10, 10
UNITS, PAIRS = 2000, 7

rows = Table("rows", MetaData(), Column("id", BigInteger, primary_key=True), Column("value", BigInteger))
one_row = select(rows.c.id, rows.c.value)
new_row = insert(rows)
ONE_ROW = Statement("one_row", "SELECT id, value FROM rows WHERE id = $1")
NEW_ROW = Statement("new_row", "INSERT INTO rows (id, value) VALUES ($1, $1)")


def read_row(connection: Connection, number: int) -> int:
    return int(connection.execute(one_row.where(rows.c.id == number % 100)).one().value)


def insert_row(connection: Connection, number: int) -> None:
    connection.execute(new_row, {"id": number, "value": number})


async def read_row_async(engine: AsyncEngine, number: int) -> int:
    async with engine.connect() as connection:
        autocommit: AsyncConnection = await connection.execution_options(isolation_level="AUTOCOMMIT")
        return int((await autocommit.execute(one_row.where(rows.c.id == number % 100))).one().value)


async def insert_row_async(engine: AsyncEngine, number: int) -> None:
    async with engine.begin() as connection:
        await connection.execute(new_row, {"id": number, "value": number})


def ours(url: str, numbers: range, *, reads: bool, how: Literal["run", "uncancellable", "statement"] = "run") -> float:
    """Return the CPU seconds that a block of units takes."""

    async def task(database: Database, mine: range) -> None:
        for number in mine:
            if how == "statement":
                await (database.fetch(ONE_ROW, number % 100) if reads else database.execute(NEW_ROW, number))
            elif how == "uncancellable":
                await uncancellable(database, read_row if reads else insert_row, number, transactional=not reads)
            elif reads:
                await database.read(read_row, number)
            else:
                await database.run(insert_row, number)

    async def block() -> float:
        settings = PlatformSettings(database_url=url, database_connections=CONNECTIONS, database_queue_wait=60)
        async with open_database(settings) as database:
            await warm_up(lambda number: database.read(read_row, number))
            with Stopwatch() as watch:
                async with trio.open_nursery() as nursery:
                    for index in range(TASKS):
                        nursery.start_soon(task, database, numbers[index::TASKS])
            return watch.seconds

    async def warm_up(read: Callable[[int], Any]) -> None:
        for _ in range(20):
            async with trio.open_nursery() as nursery:
                for number in range(TASKS):
                    nursery.start_soon(read, number)

    with one_cpu():
        return trio.run(block)


async def uncancellable(
    database: Database, function: Callable[[Connection, int], object], number: int, *, transactional: bool
) -> None:
    """Do what `run` does, without its cancellation: the same slots, lines and commands on a thread."""
    await database._lane.slots.acquire()
    started = time.perf_counter()
    line = await database._pool.take()

    def work() -> None:
        connection = line.connection(database._engine)
        if transactional:
            line.pgconn.exec_(BEGIN)
            connection.begin()
        function(connection, number)
        if transactional:
            line.pgconn.exec_(COMMIT)

    try:
        await Unit(line, transactional=transactional).run(work)  # the same hop to a thread
    finally:
        database._pool.give(line)
        database._lane.slots.release(time.perf_counter() - started)


def theirs(url: str, numbers: range, *, reads: bool) -> float:
    async def task(engine: AsyncEngine, mine: range) -> None:
        for number in mine:
            await (read_row_async(engine, number) if reads else insert_row_async(engine, number))

    async def block() -> float:
        engine = create_async_engine(
            make_url(url).set(drivername="postgresql+asyncpg"), pool_size=CONNECTIONS, max_overflow=0
        )
        try:
            await asyncio.gather(*(read_row_async(engine, number) for number in range(TASKS * 20)))
            with Stopwatch() as watch:
                async with asyncio.TaskGroup() as group:
                    for index in range(TASKS):
                        group.create_task(task(engine, numbers[index::TASKS]))
            return watch.seconds
        finally:
            await engine.dispose()

    import uvloop  # here: the names of the benchmarks are told without what they are held against

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(block())


class Stopwatch:
    """Counts the process's CPU seconds."""

    def __enter__(self) -> "Stopwatch":
        gc.collect()
        self._started = time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.process_time() - self._started


def compare(url: str, *, reads: bool, first: int) -> tuple[float, float, float, float]:
    """Return the medians: ours to theirs, to ours without cancellation, our microseconds, and a statement to ours."""
    to_theirs, to_plain, own, alone = [], [], [], []
    for pair in range(PAIRS):
        start = first + pair * 4 * UNITS
        blocks = [range(start + index * UNITS, start + (index + 1) * UNITS) for index in range(4)]
        mine = ours(url, blocks[0], reads=reads)
        other = theirs(url, blocks[1], reads=reads)
        plain = ours(url, blocks[2], reads=reads, how="uncancellable")
        alone.append(ours(url, blocks[3], reads=reads, how="statement") / mine)
        to_theirs.append(mine / other)
        to_plain.append(mine / plain)
        own.append(mine / UNITS * 1e6)
    return statistics.median(to_theirs), statistics.median(to_plain), statistics.median(own), statistics.median(alone)


def create_rows(connection: Connection) -> None:
    rows.metadata.create_all(connection)
    connection.execute(new_row, [{"id": number, "value": number} for number in range(100)])


async def prepare(url: str) -> None:
    async with open_database(PlatformSettings(database_url=url)) as database:
        await database.run(create_rows)


def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with (
        tempfile.TemporaryDirectory() as directory,
        open_embedded(Path(directory) / "data", durable=False, settings={"max_connections": "50"}) as server,
    ):
        trio.run(prepare, server.url)
        for reads, name in ((True, "read of one row"), (False, "run of insert and commit")):
            to_theirs, to_plain, own, alone = compare(server.url, reads=reads, first=1000 if reads else 1_000_000)
            print(
                f"{name}: {to_theirs:.2f} of the CPU of SQLAlchemy-asyncio + asyncpg + uvloop"
                f" ({own:.0f} us a unit); cancellation costs {(to_plain - 1) * 100:+.0f} %;"
                f" as a statement on no thread {alone:.2f} of it"
            )


if __name__ == "__main__":
    main()
