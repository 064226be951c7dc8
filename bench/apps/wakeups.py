"""`python -m bench.apps.wakeups URL listen`, until standard input ends; or `URL write WAY COMMITS POSTMASTER`.

Both print what they found, in JSON. A payload is the moment at which it was made, on the clock of the whole machine.
"""

import json
import logging
import sys
import time
from collections.abc import Callable

import structlog
import trio
from sqlalchemy import Connection, text

from bench.measure import backends_cpu_seconds
from service.platform.database import notify, open_database
from service.platform.settings import PlatformSettings

CHANNEL, TASKS = "growth", 16
INSERT = text("INSERT INTO items (text) VALUES ('a message')")
INSIDE = text("SELECT pg_notify(:channel, :payload)")


def none(connection: Connection) -> None:
    connection.execute(INSERT)


def inside(connection: Connection) -> None:
    connection.execute(INSERT)
    connection.execute(INSIDE, {"channel": CHANNEL, "payload": str(time.monotonic_ns())})


def after(connection: Connection) -> None:
    connection.execute(INSERT)
    notify(connection, CHANNEL, str(time.monotonic_ns()))


WAYS: dict[str, Callable[[Connection], None]] = {"none": none, "inside": inside, "after": after}


async def listen(url: str) -> None:
    late: list[float] = []

    async def hear() -> None:
        async with database.listen(CHANNEL) as wakeups:
            async for payloads in wakeups:
                if payloads is None:
                    print("listening", flush=True)
                late.extend((time.monotonic_ns() - int(payload)) / 1e9 for payload in payloads or ())

    async with open_database(PlatformSettings(database_url=url)) as database, trio.open_nursery() as nursery:
        nursery.start_soon(hear)
        await trio.sleep(0.5)
        before = time.process_time()
        await trio.lowlevel.wait_readable(sys.stdin)
        used = time.process_time() - before
        nursery.cancel_scope.cancel()
    print(json.dumps({"late": late, "cpu": used}), flush=True)


async def write(url: str, way: str, commits: int, postmaster: int) -> None:
    async with open_database(PlatformSettings(database_url=url, database_queue_wait=60)) as database:

        async def some(number: int) -> None:
            for _ in range(number):
                await database.run(WAYS[way])

        async def all_of(number: int) -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(some, max(1, number // TASKS))

        await all_of(TASKS)  # connections are opened
        before, begun = backends_cpu_seconds(postmaster), time.perf_counter()
        await all_of(commits)
        seconds = time.perf_counter() - begun
        await trio.sleep(0.2)  # what was told last is on its way
        print(json.dumps({"seconds": seconds, "server": backends_cpu_seconds(postmaster) - before}))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    if sys.argv[2] == "listen":
        trio.run(listen, sys.argv[1])
    else:
        trio.run(write, sys.argv[1], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
