"""NOTIFY: what a notification costs with more and more processes that listen, and how many there can be in a second.

Sixteen tasks of one process commit units of one INSERT, in three ways: with no notification; with one in each unit's
own transaction, as PostgreSQL has it, where COMMIT takes a lock of the whole server; and with `notify`, which tells
after the commit. The server keeps what it commits (fsync), as one in production does.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

from bench.measure import middle_and_late
from bench.postgres import migrated, plain
from bench.tables import Extent, Table
from service.platform.database import Embedded

COMMITS = 2_000
WAYS = {"none": "none", "inside": "in the transaction", "after": "`notify`, after the commit"}
COMMAND = (sys.executable, "-m", "bench.apps.wakeups")


@dataclass
class Listeners:
    """Processes that listen."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def end(self) -> list[dict[str, Any]]:
        """Let them tell what they heard, and end."""
        told = []
        for process in self.processes:
            output, _ = process.communicate("", timeout=60)
            told.append(json.loads(output))
        return told


def main(extent: Extent) -> None:
    table = Table(
        "listening", "Notifications", "NOTIFY", "commits/s", "PostgreSQL, µs a commit", "each listener, µs a commit",
        "heard after p50, ms", "p99, ms",
    )  # fmt: skip
    with migrated(durable=True) as embedded:
        with psycopg.connect(plain(embedded.url), autocommit=True) as connection:
            connection.execute("CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text)")
        for size in extent.sizes((1, 2, 4, 8), 8):
            for way, words in WAYS.items():
                found = measure(embedded, way, size, extent.times(COMMITS))
                table.row(size, words, found.rate, found.server, found.listener, *found.late)


@dataclass(frozen=True)
class Found:
    rate: float  # commits a second
    server: float  # µs of PostgreSQL's processors a commit
    listener: float  # µs of one listener's processor a commit
    late: tuple[float | str, float | str]  # p50 and p99 from inside the unit to a listener, ms


def measure(embedded: Embedded, way: str, size: int, commits: int) -> Found:
    with listening(embedded.url, size) as listeners:
        command = [*COMMAND, embedded.url, "write", way, str(commits), str(embedded.pid)]
        written = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        told = listeners.end()
    seconds = [late for one in told for late in one["late"]]
    return Found(
        commits / written["seconds"],
        written["server"] / commits * 1e6,
        sum(one["cpu"] for one in told) / size / commits * 1e6,
        middle_and_late(seconds) if len(seconds) > 1 else ("", ""),
    )


@contextmanager
def listening(url: str, size: int) -> Iterator[Listeners]:
    """Run so many processes that listen already."""
    listeners = Listeners()
    with ExitStack() as stack:
        for _ in range(size):
            command = [*COMMAND, url, "listen"]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            listeners.processes.append(process)
        for process in listeners.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "listening\n"
        yield listeners
