"""What each side of the comparison of jobs is told to do, and what it tells: a line of JSON."""

import json
import random
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import make_url

from bench.measure import tree_cpu_seconds

CONCURRENCY = 10
PORTION = 1_000  # jobs that are enqueued at once
POLL = 0.05  # seconds between two looks whether all have run
SETTLE = 0.5  # seconds in which the last ends are written

type Sleep = Callable[[float], Awaitable[object]]  # of Trio or of asyncio
type Enqueue = Callable[[int], Awaitable[object]]


def numbers(count: int, portion: int) -> Iterator[range]:
    for first in range(0, count, portion):
        yield range(first, min(count, first + portion))


class Task:
    """One of `run` (jobs that are enqueued many at once, then singly), `start` (one at a time) and `idle`."""

    def __init__(self) -> None:
        self.told: dict[str, Any] = {}
        self.warm_up = 200
        self.left = 0  # jobs that have not run yet
        self._began: dict[int, float] = {}
        self._waits: list[float] = []
        self._lock = threading.Lock()

    def read(self, words: list[str]) -> None:
        self.url, pid, self.kind, self.name, count = words[1:]
        self.count = int(count)
        self._postmaster = int(pid)

    @property
    def conninfo(self) -> str:
        """Return the address as libpq and asyncpg read it."""
        return make_url(self.url).set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def measured(self, name: str, count: int) -> Iterator[None]:
        """Note the processor time that this process, and PostgreSQL, use within the block for so many jobs."""
        self.left = count
        own, server = time.process_time(), tree_cpu_seconds(self._postmaster)
        yield
        self.told[name] = time.process_time() - own
        self.told[f"{name}, PostgreSQL"] = tree_cpu_seconds(self._postmaster) - server

    # the jobs

    def note(self, number: int) -> None:
        """Take notice of a job that runs."""
        if (began := self._began.pop(number, None)) is not None:
            self._waits.append(time.perf_counter() - began)
        with self._lock:  # SQL jobs are on threads
            self.left -= 1

    async def perform(self, sleep: Sleep, *, many: Enqueue, singly: Enqueue, one: Enqueue) -> None:
        """Do what was asked for. `many` and `singly` enqueue so many jobs, `one` the job of a number."""
        await sleep(2)
        if self.name == "run":
            for name, put in (("many", many), ("singly", singly)):
                for count in (self.warm_up, self.count):
                    with self.measured(name, count):
                        await put(count)
                        while self.left:  # it is counted on threads, too
                            await sleep(POLL)
                        await sleep(SETTLE)
        elif self.name == "start":
            for number in range(self.count):
                self._began[number] = time.perf_counter()
                await one(number)
                await sleep(random.uniform(0.1, 0.3))
        else:
            before = self._transactions()
            await sleep(self.count)
            self.told["transactions a minute"] = (self._transactions() - before) * 60 / self.count

    def _transactions(self) -> int:
        with psycopg.connect(self.conninfo, dbname="postgres") as connection:
            query = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = %s"
            row = connection.execute(query, (make_url(self.url).database,)).fetchone()
        assert row is not None
        return int(row[0])

    def tell(self) -> None:
        if self._waits:
            self.told["p50"] = statistics.median(self._waits)
        print(json.dumps(self.told), flush=True)
