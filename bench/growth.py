"""How cost grows with what there is of something, as the tables of docs/capacity.md have it.

    python -m bench growth [--most SIZE] [--axis NAME]... [--brief]

An axis is one of AXES, below, or of a feature's tests/<feature>/growth.py. Without `--most` each goes as far as takes a
minute or two: with it, up to that size, or to its own last one. Clients are in other processes than what is measured.
Processor time is user and system time from /proc, of the service and of PostgreSQL: a busy machine makes it some tenths
more; latencies and rates mean something on a machine that does nothing else. Load before the run is told.
"""

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

from bench import clients, notifications
from bench.measure import Server, exact_cpu_seconds, middle_and_late, server
from bench.postgres import migrated
from bench.starts import running
from bench.tables import Extent, Table
from service.platform.testing.own_server import free_port

FILES_BESIDE = 300  # open files of a process besides its websockets
TEXT = b"a message of a usual length, as people write them to each other in a room"
HELLO = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

type Axis = Callable[[Extent], None]


def websockets(extent: Extent) -> None:
    """Open websockets: memory and time of each, of a delivery, and of others' requests beside them."""
    table = Table(
        "websockets", "Open websockets", "KiB each", "µs to open one", "µs a delivery", "idle, % of a CPU",
        "GET p50, ms", "GET p99, ms",
    )  # fmt: skip
    most = open_files()
    for size in extent.sizes((10, 100, 1_000, 10_000), 1_000):
        if size + FILES_BESIDE > most:
            print(f"\nulimit -n is {most}: {size} websockets want {size + FILES_BESIDE}; the next is what goes.")
            size = most - FILES_BESIDE  # noqa: PLW2901  as far as goes
        with server("ours") as ours:
            table.row(size, *_websockets(ours, size, extent))


def _websockets(ours: Server, size: int, extent: Extent) -> Iterator[float]:
    clients.Members(ours.port, 10).close()  # what is loaded and allocated for the first ones
    memory, cpu = ours.pss, exact_cpu_seconds(ours.pid)
    with ExitStack() as stack:
        members = clients.Members(ours.port, size)
        stack.callback(members.close)
        opened = exact_cpu_seconds(ours.pid) - cpu
        yield (ours.pss - memory) / size
        yield opened / size * 1e6
        messages = extent.times(max(20, min(2_000, 200_000 // size)))
        cpu = exact_cpu_seconds(ours.pid)
        for _ in range(messages):
            members.send(TEXT)
            members.receive(size * (len(TEXT) + 2))
        yield (exact_cpu_seconds(ours.pid) - cpu) / (messages * size) * 1e6
        cpu, seconds = exact_cpu_seconds(ours.pid), extent.times(200) / 40
        time.sleep(seconds)
        yield (exact_cpu_seconds(ours.pid) - cpu) / seconds * 100
        yield from middle_and_late(clients.latencies(ours.port, HELLO, extent.times(1_000)))


def features(extent: Extent) -> None:
    """Features of a table, five routes, a setting and a metric each: what a start costs, and what is in memory."""
    table = Table("features", "Features", "start, s of processor time", "to /readyz, s", "memory, MiB", "routes")
    with migrated() as embedded, tempfile.TemporaryDirectory() as directory:
        for size in extent.sizes((1, 10, 25, 50), 50):
            rounds = [_start(embedded.url, directory, size) for _ in range(1 if extent.brief else 4)]
            known = rounds[1:] or rounds  # the first one compiles
            taken, processor, memory = (statistics.median(column) for column in zip(*known, strict=True))
            table.row(size, processor, taken, memory, f"{size * 5}")


def _start(url: str, directory: str, size: int) -> tuple[float, float, float]:
    port = free_port()
    settings = {
        "SERVICE_DATABASE_URL": url,
        "SERVICE_BIND": f"127.0.0.1:{port}",
        "SERVICE_MANAGEMENT_BIND": "127.0.0.1:0",
    }
    command: list[Path | str] = [sys.executable, "-m", "bench.apps.features", directory, str(size)]
    with running(command, port, settings) as (pid, (taken, processor)):
        return taken, processor, Server(pid, port).pss / 1024


def open_files() -> int:
    """Let this process, and those that it starts, open as many files as may be; return how many."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


AXES: dict[str, Axis] = {"websockets": websockets, "features": features, "notify": notifications.main}


def of_features() -> dict[str, Axis]:
    """Return the axes that features bring: AXES of tests/<feature>/growth.py."""
    found: dict[str, Axis] = {}
    for path in sorted(Path(__file__).parents[1].glob("tests/*/growth.py")):
        found |= import_module(f"tests.{path.parent.name}.growth").AXES
    return found


def main(arguments: list[str]) -> None:
    every = AXES | of_features()
    parser = argparse.ArgumentParser("python -m bench growth", description="Tables of how cost grows, in Markdown.")
    parser.add_argument("--most", type=int, metavar="SIZE", help="the greatest size, where an axis has it")
    parser.add_argument("--axis", action="append", choices=every, help="only this one; may be repeated")
    parser.add_argument("--brief", action="store_true", help="few repetitions: to see that it runs, not for figures")
    given = parser.parse_args(arguments)
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} before the run.", flush=True)
    for name in given.axis or every:
        every[name](Extent(given.most, given.brief))


if __name__ == "__main__":
    main(sys.argv[1:])
