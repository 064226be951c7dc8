"""Keep the process on one CPU at a time: the one where the kernel would run the event loop.

The threads of one interpreter take turns. With each on a CPU of its own, a turn that passes wakes another CPU up, and
there are ten turns in a unit of work: measured on two idle CPUs, it then takes 2.4 times the processor's time. One CPU
for good would be no better, as a neighbour may be busy there: so the kernel chooses anew, some ten times a second.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

INTERVAL = 0.1  # seconds between two choices
# Seconds in which the loop's thread may run anywhere, so that the kernel shows where it would; the longer one is for a
# CPU that others want as well, as the kernel takes its time to even out two CPUs that are both busy.
MOMENT, LONG_MOMENT = 0.002, 0.05
# Parts of a CPU. Who uses less than IDLE disturbs nobody and stays. Others want ours if the loop waits for it for more
# than WAITING, while it is not we who use the most of it.
IDLE, WAITING, MOST = 0.05, 0.2, 0.8

log = structlog.get_logger(__name__)


@contextmanager
def one_cpu() -> Iterator[None]:
    """Hold all threads of the process where its loop, this thread, runs; does nothing where that gains nothing.

    A process that is started meanwhile inherits the CPU of the moment.
    """
    allowed = _allowed()
    if len(allowed) < 2 or not sys._is_gil_enabled():
        yield
        return
    ended = threading.Event()
    keeper = threading.Thread(
        target=_keep, args=(threading.get_native_id(), allowed, ended), name="one cpu", daemon=True
    )
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()


def _keep(loop: int, allowed: set[int], ended: threading.Event) -> None:
    moment = MOMENT
    try:
        while not ended.is_set():
            _hold(loop, allowed)
            if not ended.wait(moment):
                _gather({_cpu_of(loop)})
                moment = _moment_after_work(loop, ended)
        _gather(allowed)
    except OSError as error:  # a sandbox may forbid it, and an orchestrator take a CPU away
        log.warning("not kept on one CPU", error=str(error))
        with suppress(OSError):
            _gather(allowed)


def _moment_after_work(loop: int, ended: threading.Event) -> float:
    """Wait for an interval in which there was something to do, and return how long the next moment is."""
    worked, waited = time.process_time(), _seconds_waited(loop)
    while not ended.wait(INTERVAL):
        worked_before, waited_before = worked, waited
        worked, waited = time.process_time(), _seconds_waited(loop)
        used = (worked - worked_before) / INTERVAL
        if used > IDLE:
            crowded = used < MOST and (waited - waited_before) / INTERVAL > WAITING
            return LONG_MOMENT if crowded else MOMENT
    return MOMENT


def _allowed() -> set[int]:
    """Return the CPUs that the process may use; none where threads cannot be held."""
    cpus: set[int] = set()
    if sys.platform == "linux":
        cpus = os.sched_getaffinity(0)
    return cpus


def _hold(thread: int, cpus: set[int]) -> None:
    if sys.platform == "linux":
        os.sched_setaffinity(thread, cpus)


def _gather(cpus: set[int]) -> None:
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            _hold(int(thread.name), cpus)


def _cpu_of(thread: int) -> int:
    """Return the CPU that a thread of ours runs on, or ran on last: proc(5), field 39 of `stat`."""
    fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return int(fields[36])


def _seconds_waited(thread: int) -> float:
    """Return how long a thread of ours was ready and had no CPU, where the kernel counts that: schedstat's field 2."""
    try:
        return int(Path(f"/proc/self/task/{thread}/schedstat").read_text().split()[1]) / 1e9
    except FileNotFoundError:
        return 0.0
