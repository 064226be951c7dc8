"""Servers in processes of their own, the processor time they use, and ratios as medians of interleaved pairs."""

import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from service.platform.testing.processes import descendants

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A server that is being measured."""

    pid: int
    port: int

    @property
    def cpu(self) -> float:
        return cpu_seconds(self.pid)

    @property
    def rss(self) -> float:
        """Resident memory in MB."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and its threads have used; what others do does not count."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def tree_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, of those below it, and of those below it that have ended."""
    total = 0.0
    for process in [pid, *descendants(pid)]:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / TICKS
    return total


@contextmanager
def server(name: str, *arguments: str) -> Iterator[Server]:
    """Run `bench.apps.NAME` for the length of the block, on one CPU, the same for all; what it logs is written away."""
    command = [sys.executable, "-m", f"bench.apps.{name}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        os.sched_setaffinity(process.pid, {max(os.sched_getaffinity(0))})  # its threads inherit it: it has none yet
        try:
            assert process.stdout is not None
            yield Server(process.pid, int(process.stdout.readline()))
        finally:
            process.kill()


def ratio(ours: Callable[[], float], theirs: Callable[[], float], pairs: int = 5) -> tuple[float, list[float]]:
    """Return the median of `ours / theirs` over pairs of runs, which side goes first alternating, and all of them."""
    ours(), theirs()  # the first run of each pays for what is imported and cached
    ratios = []
    for number in range(pairs):
        first, second = (ours, theirs) if number % 2 else (theirs, ours)
        one, other = first(), second()
        ratios.append(one / other if number % 2 else other / one)
    return statistics.median(ratios), ratios


def show(name: str, measured: tuple[float, list[float]], wanted: float | None) -> None:
    """Print one line."""
    median, ratios = measured
    goal = "" if wanted is None else f"wanted {wanted:.2f}x; "
    print(f"{name:<58} {median:5.2f}x  ({goal}{min(ratios):.2f} to {max(ratios):.2f})", flush=True)
