"""Servers in processes of their own, the processor time they use, and ratios as medians of interleaved pairs."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from service.platform.testing.processes import descendants

RATIOS = Path(__file__).parents[1] / "build" / "ratios.json"
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

    @property
    def pss(self) -> float:
        """Memory of its own, and its share of what is shared, in KiB."""
        return int(Path(f"/proc/{self.pid}/smaps_rollup").read_text().partition("Pss:")[2].split()[0])


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and its threads have used; what others do does not count."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def settled_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process that has nothing to do any more, to the nanosecond.

    Linux adds to a thread's time when the thread leaves the processor, and at ticks: of a server that is still at the
    end of its last request as much as a tick, 4 ms, would be missing.
    """
    threads = Path(f"/proc/{pid}/task")
    while any(_is_running(thread / "stat") for thread in threads.iterdir()):
        time.sleep(0.0005)
    return exact_cpu_seconds(pid)


def _is_running(stat: Path) -> bool:
    try:
        return stat.read_text().rpartition(")")[2].split()[0] == "R"
    except (FileNotFoundError, ProcessLookupError):  # the thread has just ended
        return False


def tree_cpu_seconds(pid: int) -> float:
    """Return the processor time of a process, of those below it, and of those below it that have ended."""
    total = 0.0
    for process in [pid, *descendants(pid)]:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / TICKS
    return total


def exact_cpu_seconds(pid: int) -> float:
    """Return what `cpu_seconds` does, to the nanosecond and not to the tick: by the clock of that process."""
    return time.clock_gettime((~pid << 3) | 2)  # as clock_getcpuclockid(3) makes it


def backends_cpu_seconds(pid: int) -> float:
    """Return the processor time of PostgreSQL's processes that run now, whose parent is `pid`, to the nanosecond.

    A difference is right while no connection is closed.
    """
    total = 0.0
    for process in [pid, *descendants(pid)]:
        with suppress(OSError):  # it has just ended
            total += exact_cpu_seconds(process)
    return total


def middle_and_late(seconds: Sequence[float]) -> tuple[float, float]:
    """Return p50 and p99 in milliseconds."""
    hundredths = statistics.quantiles(seconds, n=100)
    return hundredths[49] * 1e3, hundredths[98] * 1e3


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
    ratios = [one / other for one, other in in_turns(ours, theirs, pairs)]
    return statistics.median(ratios), ratios


def in_turns[T](ours: Callable[[], T], theirs: Callable[[], T], pairs: int) -> Iterator[tuple[T, T]]:
    """Yield what each gave in a pair of runs, ours first; in every other pair it also runs first."""
    for number in range(pairs):
        if number % 2:
            one = ours()
            yield one, theirs()
        else:
            other = theirs()
            yield ours(), other


def show(name: str, measured: tuple[float, list[float]], wanted: float | None, *, at_most: bool = False) -> None:
    """Print one line, and keep it in RATIOS; `wanted` is the least, or with `at_most` the most, or nothing."""
    median, ratios = measured
    bound = "at most" if at_most else "wanted"
    goal = "" if wanted is None else f"{bound} {wanted:.2f}x; "
    print(f"{name:<58} {median:5.2f}x  ({goal}{min(ratios):.2f} to {max(ratios):.2f})", flush=True)
    keep(name, {"median": median, "least": min(ratios), "greatest": max(ratios), bound: wanted})


def keep(name: str, figures: Mapping[str, float | None]) -> None:
    """Put the figures of one ratio into RATIOS, beside those of the same run and of earlier ones."""
    known = json.loads(RATIOS.read_text()) if RATIOS.exists() else {}
    rounded = {what: round(figure, 3) for what, figure in figures.items() if figure is not None}
    known[name] = {**rounded, "python": platform.python_version(), "at": time.strftime("%Y-%m-%d %H:%M")}
    RATIOS.parent.mkdir(exist_ok=True)
    RATIOS.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
