"""What everything around a request costs: id, deadline, log line, metrics, headers, who gets in; tracing off.

`python -m bench.price`: CPU per request over that of a bare QuartTrio on the same server, in short turns of the two;
the log lines are written, to a file.
"""

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench import clients
from bench.measure import settled_cpu_seconds

HELLO = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
READ = b"GET /items/7 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
TURNS, REQUESTS, CONNECTIONS = 100, 100, 8


@dataclass(frozen=True)
class Side:
    """A listener of the measured process."""

    pid: int
    port: int

    def cost(self, request: bytes, number: int = REQUESTS) -> float:
        """Return the microseconds of processor time that one of so many requests takes, threads included."""
        return self.cost_of(lambda: clients.requests(self.port, request, number, CONNECTIONS), number)

    def cost_of(self, ask: Callable[[], object], requests: int) -> float:
        """Return the same for one of so many requests that `ask` sends."""
        before = settled_cpu_seconds(self.pid)
        ask()
        return (settled_cpu_seconds(self.pid) - before) / requests * 1e6


@contextmanager
def sides(database_url: str) -> Iterator[list[Side]]:
    command = [sys.executable, "-m", "bench.apps.price", database_url]
    with (
        tempfile.TemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            assert process.stdout is not None
            yield [Side(process.pid, int(port)) for port in process.stdout.readline().split()]
        finally:
            process.kill()
        log.seek(0)
        lines = log.read().count(b'"event": "request"')
        assert lines > TURNS * REQUESTS, f"{lines} lines were logged"


def compare(name: str, request: bytes, measured: list[Side], most: float) -> None:
    """Print the median price, and the quartiles of the turns."""
    bare, server, whole = measured
    for side in measured * 2:
        side.cost(request)
    turns = [[side.cost(request) for side in order(measured, turn)] for turn in range(TURNS)]
    costs = {
        side: [turn[order(measured, number).index(side)] for number, turn in enumerate(turns)] for side in measured
    }
    for base, words in ((bare, "QuartTrio alone"), (server, "our server package alone")):
        prices = [(mine / theirs - 1) * 100 for mine, theirs in zip(costs[whole], costs[base], strict=True)]
        low, median, high = statistics.quantiles(prices, n=4)
        wanted = f"at most {most:.0f} %; " if base is bare else ""
        print(
            f"{f'{name}, over {words}':<58} {median:+5.1f} %  ({wanted}quartiles {low:+.1f} to {high:+.1f} "
            f"on {statistics.median(costs[base]):.0f} µs)",
            flush=True,
        )


def order(measured: list[Side], turn: int) -> list[Side]:
    """Return the sides in another order each turn."""
    return [measured[(turn + number) % len(measured)] for number in range(len(measured))]


def main(database_url: str) -> None:
    with sides(database_url) as measured:
        compare("the price of a small GET", HELLO, measured, 15)
        compare("the price of a read", READ, measured, 5)
