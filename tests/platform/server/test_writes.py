"""B1, B3, D9: peers that do not read, over HTTP and over a websocket, what they hold up, and streams that last."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio
import trio.lowlevel
from quart import websocket
from quart.wrappers.base import ClientDisconnectedError
from quart_trio import QuartTrio
from trio.testing import MockClock

from service.platform.server import Application
from tests.platform.server.child import make_settings
from tests.platform.server.conftest import Server, running, running_bare
from tests.platform.server.processes import child
from tests.platform.server.wire import UPGRADE, Reader, get, stalled, upgrade

WRITE_TIMEOUT = 0.5


async def until(condition: object, seconds: float = 15) -> None:
    """Wait for something to become true, or fail."""
    assert callable(condition)
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.02)


@pytest.mark.parametrize("request_", [get("/big"), get("/stream"), UPGRADE % (b"/pump", b"")])
async def test_a_peer_that_does_not_read_is_let_go(safe_app: Application, request_: bytes) -> None:
    async with running(safe_app, make_settings(write_timeout=WRITE_TIMEOUT)) as server:
        started = trio.current_time()
        async with await stalled(server.port, request_):
            await until(lambda: server.statistics.write_timeouts)
            took = trio.current_time() - started
            await until(lambda: not server.statistics.connections_open)

    assert WRITE_TIMEOUT <= took < WRITE_TIMEOUT + 5


async def test_a_peer_that_reads_a_trickle_is_let_go(safe_app: Application) -> None:
    settings = make_settings(write_timeout=WRITE_TIMEOUT)
    async with running(safe_app, settings) as server, await stalled(server.port, get("/big")) as client:
        with trio.fail_after(5):
            while not server.statistics.write_timeouts:
                await client.receive_some(32)
                await trio.sleep(0.05)


async def test_a_peer_that_reads_slowly_but_steadily_is_served(safe_app: Application, mock_clock: MockClock) -> None:
    mock_clock.rate = 0.1  # so that it is the peer that is slow, and not a busy machine
    async with running(safe_app, make_settings(write_timeout=WRITE_TIMEOUT)) as server:
        async with await stalled(server.port, get("/big")) as client:
            received = 0
            while received < 1 << 20:
                received += len(await client.receive_some(65_536))
                await trio.sleep(0.005)

        assert not server.statistics.write_timeouts


async def stream_of_five(app: QuartTrio, kind: Callable[[QuartTrio], AbstractAsyncContextManager[Server]]) -> bytes:
    """Return what comes of a stream that takes longer than RESPONSE_TIMEOUT."""
    app.config["RESPONSE_TIMEOUT"] = 0.25

    @app.get("/slow-stream")
    async def slow_stream() -> AsyncIterator[bytes]:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(5):
                yield b"part;"
                await trio.sleep(0.1)

        return parts()

    async with kind(app) as server, await server.connect() as client:
        await client.send_all(get("/slow-stream"))
        with trio.fail_after(5):
            try:
                return await Reader(client).until(b"\r\n0\r\n\r\n")
            except EOFError:
                return b"cut"


async def test_a_stream_may_last(app: Application) -> None:
    assert (await stream_of_five(app, running)).count(b"part;") == 5


async def test_trap_a_stream_is_cut_in_silence_by_the_stack_as_it_comes(caplog: pytest.LogCaptureFixture) -> None:
    assert await stream_of_five(QuartTrio("bare"), running_bare) == b"cut"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_sigterm_ends_the_process_with_fifty_peers_that_do_not_read(tmp_path: Path) -> None:
    # A write may wait for two minutes here, so only the drain itself can be what ends them.
    async with child("safe", tmp_path / "log", write_timeout=120, graceful_timeout=1) as server:
        requests = [get("/stream"), UPGRADE % (b"/pump", b"")] * 25
        clients = [await stalled(server.port, request) for request in requests]
        await trio.sleep(0.3)
        started = trio.current_time()
        server.terminate()

        assert await server.is_gone_within(60)
        assert server.process.returncode == 0
        print(f"ended {trio.current_time() - started:.2f} s after SIGTERM, grace 1 s")
        for client in clients:
            await client.aclose()


async def test_trap_one_peer_that_does_not_read_keeps_the_stack_as_it_comes_from_ending(tmp_path: Path) -> None:
    async with (
        child("bare", tmp_path / "log", graceful_timeout=0.5) as server,
        await stalled(server.port, get("/stream")),
    ):
        await trio.sleep(0.3)
        server.terminate()

        assert not await server.is_gone_within(2)


async def test_a_handler_can_bound_its_own_send(app: Application) -> None:
    times: list[float] = []

    @app.websocket("/ws")
    async def send_much() -> None:
        started = trio.current_time()
        with trio.move_on_after(0.2):
            while True:
                await websocket.send(bytes(65_536))
        times.append(trio.current_time() - started)

    async with running(app) as server, await stalled(server.port, UPGRADE % (b"/ws", b"")):
        await until(lambda: times)

    assert times[0] < 5


async def test_a_websocket_whose_send_was_cancelled_stays_in_step(app: Application) -> None:
    @app.websocket("/ws")
    async def send_and_stop() -> None:
        with trio.move_on_after(0.2):
            while True:
                await websocket.send(bytes(100_000))
        await websocket.send("after")
        await websocket.receive()

    async with running(app) as server, await stalled(server.port, UPGRADE % (b"/ws", b"")) as client:
        await trio.sleep(0.4)
        reader = Reader(client)
        await reader.until(b"\r\n\r\n")
        while (message := await reader.frame()) != (1, b"after"):
            assert message == (2, bytes(100_000))


@pytest.mark.parametrize("path", ["/ws", "/ws?closed"])
async def test_sending_to_a_peer_that_is_gone_does_not_stop_the_others(app: Application, path: str) -> None:
    answered = trio.Event()

    @app.websocket("/ws")
    async def send_for_ever() -> None:
        await websocket.accept()
        if websocket.args:
            await websocket.close(1000)
        with trio.CancelScope(shield=True):  # even one that will not be told
            while not answered.is_set():
                try:
                    await websocket.send("x")
                except ClientDisconnectedError:
                    await trio.lowlevel.checkpoint()

    @app.get("/")
    async def hello() -> str:
        return "hello"

    async with running(app) as server:
        async with await server.connect() as client:
            await upgrade(client, path)
        async with await server.connect() as client:
            await client.send_all(get("/"))
            try:
                assert (await Reader(client).response())[2] == b"hello"
            finally:
                answered.set()


async def test_trap_a_send_loop_whose_peer_is_gone_freezes_the_stack_as_it_comes(tmp_path: Path) -> None:
    async def leave_early() -> None:
        async with await server.connect() as client:
            reader = await upgrade(client, "/talk")
            await reader.frame()

    async with child("bare", tmp_path / "log") as server:
        with trio.fail_after(30):
            frozen = False
            while not frozen:  # it depends on whether the write or the read notices first
                with trio.move_on_after(1) as patience:  # a freeze may come late, and then it is this that hangs
                    await leave_early()
                frozen = patience.cancelled_caught
        with trio.move_on_after(1) as patience:  # and it stays so
            async with await server.connect() as client:
                await client.send_all(get("/"))
                await client.receive_some()

    assert patience.cancelled_caught
