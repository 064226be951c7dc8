"""The promise from outside: a client that leaves, or a deadline that passes, takes its query along."""

import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pytest
import trio

from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import ready
from tests.platform.database.observer import observe


class Ports(NamedTuple):
    public: int
    management: int


@asynccontextmanager
async def serving(directory: Path, database_url: str, **settings: object) -> AsyncIterator[Ports]:
    """Yield the ports of a service, in a process of its own, whose requests are queries."""
    command = (sys.executable, "-m", "tests.platform.database.queries")
    async with ready(directory, command=command, database_url=database_url, rate_per_address=0, **settings) as process:
        yield Ports(*(int(url.rpartition(":")[2]) for url in (process.public, process.management)))


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


@pytest.mark.parametrize(
    ("times", "promised"), [(20, (1, 5)), pytest.param(200, (0.010, 0.025), marks=pytest.mark.drill)]
)
async def test_a_client_that_disconnects_takes_its_query_along(
    tmp_path: Path, database_url: str, times: int, promised: tuple[float, float]
) -> None:
    lasted = []
    with trio.fail_after(60), observe(database_url) as observer:
        async with serving(tmp_path, database_url) as ports:
            for _ in range(times):
                stream = await trio.open_tcp_stream("127.0.0.1", ports.public)
                await stream.send_all(b"GET /query/9.5 HTTP/1.1\r\nHost: localhost\r\n\r\n")
                await observer.wait_running()
                started = time.perf_counter()
                await stream.aclose()
                await observer.wait_gone()
                lasted.append(time.perf_counter() - started)

    median, p99 = statistics.median(lasted), statistics.quantiles(lasted, n=100)[98]
    print(f"disconnect to gone, of {times}: median {median * 1000:.1f} ms, p99 {p99 * 1000:.1f} ms")
    assert median < promised[0]
    assert p99 < promised[1]


async def test_a_deadline_answers_504_and_the_query_is_gone(tmp_path: Path, database_url: str) -> None:
    with trio.fail_after(30), observe(database_url) as observer:
        async with serving(tmp_path, database_url, request_deadline=0.5) as ports:
            started = trio.current_time()
            status, headers, body = await request(ports.public, "/query/9.5")
            lasted = trio.current_time() - started

            assert observer.running() is None
            assert (status, headers["content-type"]) == (504, "application/problem+json")
            assert json.loads(body)["status"] == 504
            assert 0.5 <= lasted < 9  # when the query would have ended
            assert (await request(ports.public, "/query/0.0"))[0] == 200


# promised: 0.1 s, which a machine with nothing else to do shows
PROBES = pytest.mark.parametrize("most", [5, pytest.param(0.1, marks=pytest.mark.drill)])


@PROBES
async def test_500_requests_on_10_connections_are_served_or_refused_and_probes_answer(
    tmp_path: Path, database_url: str, most: float
) -> None:
    answers: list[tuple[int, Mapping[str, str]]] = []
    with trio.fail_after(60):
        async with serving(tmp_path, database_url, max_requests=1000) as ports:

            async def ask() -> None:
                status, headers, _ = await request(ports.public, "/query/0.2")
                answers.append((status, headers))

            for _ in range(10):  # so that there is a recent mean
                await ask()
            async with probing(ports) as late, trio.open_nursery() as crowd:
                for _ in range(500):  # twenty times as many a second as ten connections can serve
                    crowd.start_soon(ask)
                    await trio.sleep(1 / 1000)
    refused = [headers for status, headers in answers if status == 503]

    print(f"{len(answers) - len(refused)} served, {len(refused)} refused; {late}")
    assert {status for status, _ in answers} == {200, 503}
    assert len(answers) == 510
    assert all(int(headers["retry-after"]) >= 1 for headers in refused)
    assert late.p99 < most


@PROBES
async def test_probes_answer_while_all_connections_are_busy_and_more_wait(
    tmp_path: Path, database_url: str, most: float
) -> None:
    full = {"database_connections": 5, "database_queue_wait": 60, "max_requests": 1000}
    with trio.fail_after(60):
        async with serving(tmp_path, database_url, **full) as ports, trio.open_nursery() as crowd:
            for _ in range(100):
                crowd.start_soon(request, ports.public, "/query/9.0")
            await trio.sleep(0.5)
            async with probing(ports) as late:
                await trio.sleep(1)
            crowd.cancel_scope.cancel()

    print(f"a full pool: {late}")
    assert late.p99 < most


@dataclass
class Late:
    """How long probes took, in seconds."""

    took: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.took)

    @property
    def p99(self) -> float:
        return sorted(self.took)[int(len(self.took) * 0.99)]

    def __str__(self) -> str:
        return f"{len(self.took)} probes, median {self.median * 1000:.0f} ms, p99 {self.p99 * 1000:.0f} ms"


@asynccontextmanager
async def probing(ports: Ports) -> AsyncIterator[Late]:
    """Ask both listeners for `/livez`, each time over a new connection, and yield how long it takes."""
    late = Late()

    async def probe(port: int) -> None:
        while True:
            started = trio.current_time()
            assert (await request(port, "/livez"))[0] == 200
            late.took.append(trio.current_time() - started)
            await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        for port in ports:
            nursery.start_soon(probe, port)
        yield late
        nursery.cancel_scope.cancel()


async def test_requests_are_refused_while_the_database_is_away(tmp_path: Path, one_server: OwnServer) -> None:
    migrate(PlatformSettings(database_url=one_server.url))
    with trio.fail_after(30):
        async with serving(tmp_path, one_server.url) as ports:
            assert (await request(ports.public, "/query/0.0"))[0] == 200
            one_server.stop()
            started = trio.current_time()
            status, headers, _ = await request(ports.public, "/query/0.0")

            assert (status, int(headers["retry-after"]) >= 1) == (503, True)
            assert trio.current_time() - started < 9  # the deadline is 10
            assert (await request(ports.public, "/readyz"))[0] == 200, "an outage alone is not unreadiness"
            one_server.start()
            assert (await request(ports.public, "/query/0.0"))[0] == 200
