"""`service smoke` against real processes: what works is told line by line, and what does not ends it with 1.

The two addresses 127.0.0.1 and 127.0.0.2 stand for two pods; Linux gives a process both.
"""

import signal
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from service.commands.smoke import SmokeError, smoke
from tests.processes import Process, ready, run_to_end

QUICK = {"drain_delay": 0, "drain_spread": 0, "bind": "0.0.0.0:0"}
WITH_ROOM = (sys.executable, "-m", "tests.helm.room")


def two_addresses(service: Process) -> list[str]:
    port = service.public.rpartition(":")[2]
    return [f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"]


async def told_by_smoke(urls: list[str], *, host: str = "", health_only: bool = False) -> list[str]:
    with trio.fail_after(30):
        return [line async for line in smoke(urls, replicas=2, host=host, health_only=health_only)]


async def test_tells_of_each_replica_and_of_each_crossing(tmp_path: Path, database_url: str) -> None:
    async with ready(tmp_path, "open_room", command=WITH_ROOM, database_url=database_url, **QUICK) as service:
        urls = two_addresses(service)
        done = await trio.to_thread.run_sync(lambda: run_to_end(tmp_path, "smoke", *urls, "--replicas", "2"))

    first, second = (url.removeprefix("http://") for url in urls)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        f"ok    {first} answers /livez /readyz /healthz",
        f"ok    {second} answers /livez /readyz /healthz",
        f"ok    a message sent to {first} came out of {second}",
        f"ok    a message sent to {second} came out of {first}",
    ]


async def test_the_host_that_is_sent_can_be_named(tmp_path: Path, database_url: str) -> None:
    async with ready(tmp_path, "open_picky_room", command=WITH_ROOM, database_url=database_url, **QUICK) as service:
        urls = two_addresses(service)

        with pytest.raises(SmokeError, match="the websocket was closed with 421"):
            await told_by_smoke(urls)
        with pytest.raises(SmokeError, match="the websocket was closed with 1013"):
            await told_by_smoke(urls, host="chat.example.org")


async def test_a_replica_that_stores_nothing_is_found_and_so_is_one_that_leaves(
    tmp_path: Path, database_url: str
) -> None:
    settings = {**QUICK, "drain_delay": 30}
    room = "open_refusing_room"
    async with ready(tmp_path, room, command=WITH_ROOM, database_url=database_url, **settings) as service:
        urls = two_addresses(service)
        assert len(await told_by_smoke(urls, health_only=True)) == 2
        with pytest.raises(SmokeError, match="unavailable: the database is away"):
            await told_by_smoke(urls)

        service.send(signal.SIGTERM)
        await service.wait_event("draining")
        with pytest.raises(SmokeError, match=r"/readyz says 'HTTP/1\.1 503"):
            await told_by_smoke(urls, health_only=True)


async def test_fewer_replicas_than_promised_are_found(autojump_clock: MockClock) -> None:
    with pytest.raises(SmokeError, match="leads to 1 replicas, and 2 were promised"):
        await told_by_smoke(["http://127.0.0.1:1"])


async def test_a_replica_that_takes_no_connection_is_found(tmp_path: Path) -> None:
    done = await trio.to_thread.run_sync(lambda: run_to_end(tmp_path, "smoke", "http://127.0.0.1:1", "--replicas", "1"))

    assert done.returncode == 1
    assert done.stderr.startswith("127.0.0.1:1 takes no connection")
