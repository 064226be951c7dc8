"""Many peers at once, slow, gone or coming and going: all are let go, and nothing of them is left behind.

Short forms here; the long forms, with the figures that are promised, are drills.
"""

import contextlib
import signal
import socket
from pathlib import Path

import pytest
import trio
import trio.testing

from service.platform.lifecycle import Lifecycle
from service.platform.server import Application, RateLimits, ServerStatistics, guard, open_listener
from tests.platform.server.child import make_settings
from tests.platform.server.conftest import running
from tests.platform.server.processes import Child, child
from tests.platform.server.test_memory import BUSY_LATENCY, LATENCY, watching
from tests.platform.server.wire import Reader, get, stalled, upgrade

CROWD = 500
POST = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"


async def slow_headers(server: Child) -> None:
    await trickle(server, b"GET / HTTP/1.1\r\nHost: x\r\n", b"X-A: b\r\n")


async def slow_body(server: Child) -> None:
    await trickle(server, POST, b"x")


async def trickle(server: Child, start: bytes, drop: bytes) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async with await server.connect() as client:
            await client.send_all(start)
            while True:
                await trio.sleep(0.5)
                await client.send_all(drop)


async def slow_reader(server: Child) -> None:
    with contextlib.suppress(trio.BrokenResourceError):
        async with await stalled(server.port, get("/big")) as client:
            while await client.receive_some(32):
                await trio.sleep(0.5)


async def slow_storm(server: Child, number: int, seconds: float) -> float:
    """Return the seconds until the server has let go of the last of `number` slow peers of each kind."""
    before = server.descriptors
    started = trio.current_time()
    with trio.fail_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(number):
                for peer in (slow_headers, slow_body, slow_reader):
                    nursery.start_soon(peer, server)
            await trio.sleep(0.5)
            assert server.descriptors > before
            while server.descriptors > before:
                await trio.sleep(0.05)
            nursery.cancel_scope.cancel()  # a reader this slow has yet to notice
    return trio.current_time() - started


async def test_slow_peers_are_all_let_go_and_probes_stay_quick(tmp_path: Path) -> None:
    times = {"header_timeout": 1, "body_timeout": 1, "write_timeout": 1}
    async with child("safe", tmp_path / "log", **times) as server, watching(server) as latencies:
        await slow_storm(server, 20, seconds=20)

        assert sorted(latencies)[int(len(latencies) * 0.99)] < BUSY_LATENCY


@pytest.mark.drill
async def test_300_slow_peers_are_gone_within_30_seconds_with_the_default_times(tmp_path: Path) -> None:
    async with child("safe", tmp_path / "log") as server, watching(server) as latencies:
        took = await slow_storm(server, 100, seconds=30)
        latencies.sort()
        print(f"300 slow peers: the last was let go after {took:.1f} s")
        print(f"probes meanwhile: p99 {latencies[int(len(latencies) * 0.99)] * 1000:.1f} ms")

        assert latencies[int(len(latencies) * 0.99)] < LATENCY


@pytest.mark.drill
async def test_probes_stay_quick_while_500_slow_requests_are_on(tmp_path: Path) -> None:
    async with child("safe", tmp_path / "log", max_requests=1_000) as server, watching(server) as latencies:
        async with trio.open_nursery() as nursery:
            for _ in range(500):
                nursery.start_soon(_ask, server, get("/slow/5.0"))
        latencies.sort()
        print(f"probes during 500 slow requests: p99 {latencies[int(len(latencies) * 0.99)] * 1000:.1f} ms")

        assert latencies[int(len(latencies) * 0.99)] < LATENCY


async def test_a_probe_behind_a_crowd_is_answered_before_that_is_refused(
    safe_app: Application, mock_clock: trio.testing.MockClock
) -> None:
    """They all knock before the probe does, and before the server runs.

    The clock stands still: nobody of the crowd runs out of patience, however long a busy machine takes to let it in.
    """
    settings, statistics = make_settings(max_requests=20), ServerStatistics()
    whole = guard(
        safe_app, settings=settings, lifecycle=Lifecycle(), statistics=statistics, limits=RateLimits(0), any_host=set()
    )
    probes = {"/refused": lambda: (200, str(statistics.refused.total()).encode())}
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(open_listener("127.0.0.1:0"))
        listener.listen(2 * CROWD)
        crowd = [stack.enter_context(socket.create_connection(listener.getsockname())) for _ in range(CROWD)]
        for peer in crowd:
            peer.sendall(get("/slow/0.2"))
        async with (
            await trio.open_tcp_stream(*listener.getsockname()) as probe,
            running(whole, settings, listener=listener, probes=probes),
        ):
            await probe.send_all(get("/refused"))
            refused = int((await Reader(probe).response())[2])
            mock_clock.rate = 1
            answers = [await trio.to_thread.run_sync(peer.recv, 12) for peer in crowd]

    assert set(answers) == {b"HTTP/1.1 200", b"HTTP/1.1 503"}
    assert refused < CROWD / 10


@pytest.mark.drill
async def test_500_connections_at_one_instant_leave_a_probe_on_a_new_one_quick(tmp_path: Path) -> None:
    async with child("safe", tmp_path / "log", max_requests=20) as server, contextlib.AsyncExitStack() as stack:
        await _ask(server, get("/livez"))
        server.process.send_signal(signal.SIGSTOP)
        crowd = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(CROWD)]
        for peer in crowd:
            peer.sendall(get("/slow/0.2"))
        async with await server.connect() as probe:
            await probe.send_all(get("/livez"))
            started = trio.current_time()
            server.process.send_signal(signal.SIGCONT)
            await Reader(probe).response()
            took = trio.current_time() - started
        answers = [await trio.to_thread.run_sync(peer.recv, 12) for peer in crowd]
        print(f"a probe behind {CROWD} connections: {took * 1000:.0f} ms")

        assert set(answers) == {b"HTTP/1.1 200", b"HTTP/1.1 503"}
        assert took < LATENCY


async def test_coming_and_going_leaves_nothing_behind(tmp_path: Path) -> None:
    async with child("safe", tmp_path / "log") as server:
        await coming_and_going(server, connections=600, websockets=100, warm_up=300)


@pytest.mark.drill
async def test_ten_thousand_connections_and_a_thousand_websockets_leave_nothing_behind(tmp_path: Path) -> None:
    async with child("safe", tmp_path / "log") as server:
        await coming_and_going(server, connections=10_000, websockets=1_000, warm_up=1_000)


async def coming_and_going(server: Child, *, connections: int, websockets: int, warm_up: int) -> None:
    await _connect_and_reset(server, warm_up)
    await _upgrade_and_abort(server, warm_up // 10)
    descriptors, rss, tasks = server.descriptors, server.rss, await _tasks(server)
    await _connect_and_reset(server, connections)
    await _upgrade_and_abort(server, websockets)
    with trio.fail_after(20):
        while server.descriptors > descriptors or await _tasks(server) > tasks:
            await trio.sleep(0.05)
    print(f"descriptors {descriptors} -> {server.descriptors}, RSS {rss:.1f} -> {server.rss:.1f} MB")

    assert server.rss < rss * 1.05


async def _connect_and_reset(server: Child, number: int) -> None:
    for index in range(number):
        client = await server.connect()
        client.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: a reset instead of an end
        if index % 3:
            await client.send_all(get("/slow/1.0") if index % 3 == 1 else b"GET / HT")
        await client.aclose()


async def _upgrade_and_abort(server: Child, number: int) -> None:
    for _ in range(number):
        client = await server.connect()
        await upgrade(client, "/echo")
        client.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        await client.aclose()


async def _ask(server: Child, request: bytes) -> bytes:
    async with await server.connect() as client:
        await client.send_all(request)
        return (await Reader(client).response())[2]


async def _tasks(server: Child) -> int:
    """Return how many tasks the server runs, the one that answers this included."""
    return int(await _ask(server, get("/tasks")))
