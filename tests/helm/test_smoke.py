"""`service smoke` against real replicas: what works is told line by line, and what does not ends it with 1.

Where one replica is enough, its addresses 127.0.0.1 and 127.0.0.2 stand for two pods; Linux gives a process both.
"""

import signal
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from service.commands.smoke import SmokeError, smoke
from tests.processes import Process, ready, run_to_end

QUICK = {"drain_delay": 0, "drain_spread": 0}
BOTH = QUICK | {"bind": "0.0.0.0:0"}


def two_addresses(replica: Process) -> list[str]:
    port = replica.public.rpartition(":")[2]
    return [f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"]


async def told_by_smoke(urls: list[str], *, host: str = "", health_only: bool = False) -> list[str]:
    with trio.fail_after(30):
        return [line async for line in smoke(urls, replicas=2, host=host, health_only=health_only)]


async def test_tells_of_each_replica_and_of_each_crossing(tmp_path: Path, database_url: str) -> None:
    async with (
        ready(tmp_path, "serve", name="one", database_url=database_url, **QUICK) as one,
        ready(tmp_path, "serve", name="two", database_url=database_url, **QUICK) as two,
    ):
        urls = sorted([one.public, two.public])
        done = await trio.to_thread.run_sync(lambda: run_to_end(tmp_path, "smoke", *urls))

    first, second = (url.removeprefix("http://") for url in urls)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"ok    {first} answers /livez /readyz /healthz",
        f"ok    {second} answers /livez /readyz /healthz",
        f"ok    a message sent to {first} came out of {second}",
        f"ok    a message sent to {second} came out of {first}",
    ]
    assert done.returncode == 0


async def test_the_host_that_is_sent_can_be_named(tmp_path: Path, database_url: str) -> None:
    settings = BOTH | {"allowed_hosts": "chat.example.org"}
    async with ready(tmp_path, "serve", database_url=database_url, **settings) as replica:
        urls = two_addresses(replica)

        with pytest.raises(SmokeError, match="is not served here"):
            await told_by_smoke(urls)
        assert len(await told_by_smoke(urls, host="chat.example.org")) == 4


async def test_a_replica_that_refuses_the_message_is_found_and_so_is_one_that_leaves(
    tmp_path: Path, database_url: str
) -> None:
    # A burst is two seconds of this rate: not enough for the four websockets and two messages of a smoke test.
    settings = BOTH | {"drain_delay": 30, "rate_per_address": 1}
    async with ready(tmp_path, "serve", database_url=database_url, **settings) as replica:
        urls = two_addresses(replica)
        assert len(await told_by_smoke(urls, health_only=True)) == 2
        with pytest.raises(SmokeError, match=r"rate_limited|closed with 429"):
            await told_by_smoke(urls)

        replica.send(signal.SIGTERM)
        await replica.wait_event("draining")
        with pytest.raises(SmokeError, match=r"/readyz says 'HTTP/1\.1 503"):
            await told_by_smoke(urls, health_only=True)


async def test_fewer_replicas_than_promised_are_found(autojump_clock: MockClock) -> None:
    with pytest.raises(SmokeError, match="leads to 1 replicas, and 2 were promised"):
        await told_by_smoke(["http://127.0.0.1:1"])


async def test_a_replica_that_takes_no_connection_is_found(tmp_path: Path) -> None:
    done = await trio.to_thread.run_sync(lambda: run_to_end(tmp_path, "smoke", "http://127.0.0.1:1", "--replicas", "1"))

    assert done.returncode == 1
    assert done.stderr.startswith("127.0.0.1:1 takes no connection")
