"""A process that keeps to one CPU: which one is the kernel's choice, made again and again."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from service.platform.testing.processes import ROOT, started

ALLOWED = os.sched_getaffinity(0)
# Waits for its schema, and so is alive: nothing listens there.
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"

# Works in short steps, as an event loop does.
WORKER = """
import time
from service.platform.process.one_cpu import one_cpu

with one_cpu():
    while True:
        until = time.perf_counter() + 0.002
        while time.perf_counter() < until:
            pass
        time.sleep(0.001)
"""
HOG = """
import os, sys

os.sched_setaffinity(0, {int(sys.argv[1])})
while True:
    pass
"""

several = pytest.mark.skipif(len(ALLOWED) < 2, reason="the machine has one CPU: there is nothing to choose")


@contextmanager
def spinning(code: str, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def cpus_of(pid: int) -> set[frozenset[int]]:
    """Return where the threads of a process may run: one set if it is the same for all."""
    return {frozenset(os.sched_getaffinity(int(thread.name))) for thread in Path(f"/proc/{pid}/task").iterdir()}


async def keeps_to_one(pid: int, *, apart_from: int = -1) -> int:
    """Return the CPU once every thread of the process has only that one."""
    with trio.fail_after(30):
        while True:
            found = cpus_of(pid)
            if len(found) == 1 and len(cpus := next(iter(found))) == 1 and apart_from not in cpus:
                return next(iter(cpus))
            await trio.sleep(0.005)


@several
async def test_every_thread_is_kept_on_one_cpu(tmp_path: Path) -> None:
    with started(tmp_path, "serve", database_url=NOWHERE, one_cpu=True) as process:
        await process.wait_event("starting")

        assert await keeps_to_one(process.process.pid) in ALLOWED


@several
async def test_it_leaves_a_cpu_that_others_want() -> None:
    with spinning(WORKER) as worker:
        crowded = await keeps_to_one(worker.pid)
        with spinning(HOG, crowded), spinning(HOG, crowded), spinning(HOG, crowded):
            assert await keeps_to_one(worker.pid, apart_from=crowded) != crowded


@several
async def test_it_may_run_anywhere_unless_the_setting_says_otherwise(tmp_path: Path) -> None:
    with started(tmp_path, "serve", database_url=NOWHERE) as process:
        await process.wait_event("starting")
        await trio.sleep(0.5)  # several times the interval in which a CPU would be chosen

        assert cpus_of(process.process.pid) == {frozenset(ALLOWED)}
