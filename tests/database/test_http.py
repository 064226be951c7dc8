"""The promise from outside: a client that leaves, or a deadline that passes, takes its query along."""

import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from service.database import migrate
from service.settings import Settings
from tests.database.observer import observe
from tests.database.server import OwnServer
from tests.processes import ready


@asynccontextmanager
async def serving(directory: Path, database_url: str, **settings: object) -> AsyncIterator[int]:
    """Yield the public port of a service, in a process of its own, whose requests are queries."""
    command = (sys.executable, "-m", "tests.database.queries")
    async with ready(directory, command=command, database_url=database_url, rate_per_address=0, **settings) as process:
        yield int(process.public.rpartition(":")[2])


async def request(port: int, path: str) -> tuple[int, Mapping[str, str], bytes]:
    """Return status, headers and body; one connection each, closed by the server."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join([part async for part in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return (
        int(first.split()[1]),
        {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)},
        body,
    )


async def test_a_client_that_disconnects_takes_its_query_along(tmp_path: Path, database_url: str) -> None:
    lasted = []
    with trio.fail_after(60), observe(database_url) as observer:
        async with serving(tmp_path, database_url) as port:
            for _ in range(50):
                stream = await trio.open_tcp_stream("127.0.0.1", port)
                await stream.send_all(b"GET /query/9.5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await observer.wait_running()
                started = time.perf_counter()
                await stream.aclose()
                await observer.wait_gone()
                lasted.append(time.perf_counter() - started)

    median, worst = statistics.median(lasted), max(lasted)
    print(f"disconnect to gone, of 50: median {median * 1000:.1f} ms, worst {worst * 1000:.1f} ms")
    assert median < 0.05  # 0.010 on a machine with nothing else to do
    assert worst < 0.5


async def test_a_deadline_answers_504_and_the_query_is_gone(tmp_path: Path, database_url: str) -> None:
    with trio.fail_after(20), observe(database_url) as observer:
        async with serving(tmp_path, database_url, request_deadline=0.5) as port:
            started = trio.current_time()
            status, headers, body = await request(port, "/query/9.5")
            lasted = trio.current_time() - started

            assert observer.running() is None
            assert (status, headers["content-type"]) == (504, "application/problem+json")
            assert json.loads(body)["status"] == 504
            assert 0.5 <= lasted < 1
            assert (await request(port, "/query/0.0"))[0] == 200


async def test_500_requests_on_10_connections_are_served_or_refused_and_probes_answer(
    tmp_path: Path, database_url: str
) -> None:
    answers: list[tuple[int, Mapping[str, str]]] = []
    probes: list[float] = []
    with trio.fail_after(60):
        async with serving(tmp_path, database_url, max_requests=1000) as port, trio.open_nursery() as nursery:

            async def ask() -> None:
                status, headers, _ = await request(port, "/query/0.05")
                answers.append((status, headers))

            async def probe() -> None:
                while True:
                    started = trio.current_time()
                    assert (await request(port, "/livez"))[0] == 200
                    probes.append(trio.current_time() - started)
                    await trio.sleep(0.01)

            for _ in range(10):  # so that there is a recent mean
                await ask()
            nursery.start_soon(probe)
            async with trio.open_nursery() as crowd:
                for _ in range(500):  # twice as many a second as ten connections can serve
                    crowd.start_soon(ask)
                    await trio.sleep(1 / 400)
            nursery.cancel_scope.cancel()
    refused = [headers for status, headers in answers if status == 503]
    p99 = sorted(probes)[int(len(probes) * 0.99)]

    print(f"{len(answers) - len(refused)} served, {len(refused)} refused; probes p99 {p99 * 1000:.0f} ms")
    assert {status for status, _ in answers} == {200, 503}
    assert len(answers) == 510
    assert all(int(headers["retry-after"]) >= 1 for headers in refused)
    assert statistics.median(probes) < 0.1
    assert p99 < 1  # 0.1 on a machine with nothing else to do


async def test_requests_are_refused_while_the_database_is_away(tmp_path: Path, one_server: OwnServer) -> None:
    migrate(Settings(database_url=one_server.url))
    with trio.fail_after(30):
        async with serving(tmp_path, one_server.url) as port:
            assert (await request(port, "/query/0.0"))[0] == 200
            one_server.stop()
            started = trio.current_time()
            status, headers, _ = await request(port, "/query/0.0")

            assert (status, int(headers["retry-after"]) >= 1) == (503, True)
            assert trio.current_time() - started < 1
            assert (await request(port, "/readyz"))[0] == 200, "an outage alone is not unreadiness"
            one_server.start()
            assert (await request(port, "/query/0.0"))[0] == 200
