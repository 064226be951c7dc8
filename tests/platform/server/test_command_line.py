"""D1, D3: why `hypercorn -k trio` is not how we serve. What our own process does instead is shown in tests/system."""

import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.platform.server.processes import Child
from tests.platform.server.wire import Reader, get

SERVING = re.compile(r"Running on http://127\.0\.0\.1:(\d+)")


@asynccontextmanager
async def hypercorn(app: str, log: Path, *options: str) -> AsyncIterator[Child]:
    """Run Hypercorn's command line on a port of its choice, which the child that is yielded knows once it serves."""
    command = [sys.executable, "-m", "hypercorn", "-k", "trio", "-b", "127.0.0.1:0", *options, app]
    with trio.fail_after(30), log.open("wb") as output:
        process = await trio.lowlevel.open_process(command, stdout=output, stderr=output, start_new_session=True)
        child = Child(process, 0, log)
        try:
            while process.poll() is None and not (serving := SERVING.search(log.read_text())):
                await trio.sleep(0.02)
            child.port = int(serving[1]) if process.returncode is None and serving else 0
            yield child
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # the workers as well
            with trio.CancelScope(shield=True):
                await process.wait()


@pytest.mark.parametrize("app", ["tests.platform.server.nowhere:app", "tests.platform.server.failing:never_starts"])
async def test_trap_an_app_that_does_not_start_is_a_success_to_hypercorn(app: str, tmp_path: Path) -> None:
    async with hypercorn(app, tmp_path / "log") as server:
        assert await server.is_gone_within(10)
        assert "Error" in server.log.read_text()
        assert server.process.returncode == 0


async def test_trap_with_two_workers_a_request_in_flight_is_lost_at_sigterm(tmp_path: Path) -> None:
    two = hypercorn("tests.platform.server.failing:good", tmp_path / "log", "-w", "2", "--graceful-timeout", "60")
    async with two as server, await server.connect() as client:
        reader = Reader(client)
        await client.send_all(get("/") + get("/slow/20.0"))
        await reader.response()  # so one of the two has the other one too
        server.terminate()

        with pytest.raises((EOFError, trio.BrokenResourceError)):
            await reader.response()  # the other worker's end ends this one


async def test_trap_a_crash_in_the_apps_nursery_leaves_half_a_server_that_ends_well(tmp_path: Path) -> None:
    async with hypercorn("tests.platform.server.failing:half_dead", tmp_path / "log") as server:
        while "RuntimeError: meant" not in server.log.read_text():
            await trio.sleep(0.02)
        async with await server.connect() as client:
            await client.send_all(get("/"))
            assert (await Reader(client).response())[2] == b"hello"
        server.process.send_signal(signal.SIGTERM)

        assert await server.is_gone_within(10)
        assert server.process.returncode == 0
        assert "torn down" not in server.log.read_text()
