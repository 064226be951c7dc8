"""`service smoke` against real replicas: what works is told line by line, and what does not ends it with 1.

Where one replica is enough, its addresses 127.0.0.1 and 127.0.0.2 stand for two pods; Linux gives a process both.
"""

import signal
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from service.platform.client.smoke import SmokeError, smoke
from service.platform.testing.processes import Process, ready, run_to_end

QUICK = {"drain_delay": 0, "drain_spread": 0}
BOTH = QUICK | {"bind": "0.0.0.0:0"}


def two_addresses(replica: Process) -> list[str]:
    port = replica.public.rpartition(":")[2]
    return [f"http://127.0.0.1:{port}", f"http://127.0.0.2:{port}"]


async def told_by_smoke(urls: list[str], *, host: str = "") -> list[str]:
    with trio.fail_after(30):
        return [line async for line in smoke(urls, replicas=2, host=host)]


async def test_the_host_that_is_sent_can_be_named(tmp_path: Path, database_url: str) -> None:
    settings = BOTH | {"allowed_hosts": "demo.example.org"}
    async with ready(tmp_path, "serve", database_url=database_url, **settings) as replica:
        urls = two_addresses(replica)

        with pytest.raises(SmokeError, match="is not served here"):
            await told_by_smoke(urls)
        told = await told_by_smoke(urls, host="demo.example.org")

    assert told == [
        f"ok    {url.removeprefix('http://')} answers /livez /readyz /healthz /openapi.json" for url in urls
    ]


async def test_a_replica_that_leaves_is_found(tmp_path: Path, database_url: str) -> None:
    settings = BOTH | {"drain_delay": 30}
    async with ready(tmp_path, "serve", database_url=database_url, **settings) as replica:
        replica.send(signal.SIGTERM)
        await replica.wait_event("draining")

        with pytest.raises(SmokeError, match="/readyz says 503"):
            await told_by_smoke(two_addresses(replica))


async def test_fewer_replicas_than_promised_are_found(autojump_clock: MockClock) -> None:
    with pytest.raises(SmokeError, match="leads to 1 replicas, and 2 were promised"):
        await told_by_smoke(["http://127.0.0.1:1"])


async def test_what_another_program_answers_is_shown_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    async def answer(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(b"HTTP/1.1 418 I\r\nContent-Length: 10\r\n\r\n\x1b[2Jcleare")

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        words = ("smoke", f"http://127.0.0.1:{port}", "--replicas", "1")
        done = await trio.to_thread.run_sync(lambda: run_to_end(tmp_path, *words))
        nursery.cancel_scope.cancel()

    assert done.stderr == f"127.0.0.1:{port}/livez says 418: \\x1b[2Jcleare\n"


async def test_an_address_behind_tls_is_no_replica_s(tmp_path: Path) -> None:
    done = await trio.to_thread.run_sync(lambda: run_to_end(tmp_path, "smoke", "https://shop.example.org"))

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("https://shop.example.org: must start with http://")


async def test_a_replica_that_takes_no_connection_is_found(tmp_path: Path) -> None:
    done = await trio.to_thread.run_sync(lambda: run_to_end(tmp_path, "smoke", "http://127.0.0.1:1", "--replicas", "1"))

    assert done.returncode == 1
    assert done.stderr.startswith("127.0.0.1:1 takes no connection")
