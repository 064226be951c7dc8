"""A websocket's place among the open ones, which the drain and the gauge count, however its accept and its end go."""

import logging
from typing import Any

import pytest
import structlog.testing
import trio
import trio.testing
from trio.testing import MockClock

from service.platform.http import around
from service.platform.server import Application, CloseReason, websocket
from service.platform.server.websocket_stream import UNTAKEN_TIMEOUT, WebsocketStream
from tests.platform.server.conftest import Server, running
from tests.platform.server.test_websockets import until
from tests.platform.server.wire import CLOSE, TEXT, UPGRADE, Reader, frame, stalled, upgrade

MORE = bytes(32 << 20)  # than a socket's buffers hold


def stream() -> WebsocketStream:
    found: Any = websocket.outbox
    assert isinstance(found, WebsocketStream)
    return found


async def gone(server: Server) -> None:
    await until(lambda: not server.statistics.connections_open, seconds=40)


@pytest.mark.parametrize("headers", [{"Sec-WebSocket-Protocol": "mine"}, {"X-Two": "one\0two"}], ids=repr)
async def test_an_accept_with_headers_that_cannot_be_sent_is_a_500(
    app: Application, caplog: pytest.LogCaptureFixture, headers: dict[str, str]
) -> None:
    @app.websocket("/ws")
    async def ws() -> None:
        await websocket.accept(headers=headers)

    with structlog.testing.capture_logs() as lines:
        async with running(around(app)) as server:
            async with await server.connect() as client:
                await client.send_all(UPGRADE % (b"/ws", b""))
                status, _, _ = await Reader(client).response()
            await gone(server)

    assert status == 500
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
        "Exception on websocket /ws"
    ]
    assert [(line["event"], line.get("status")) for line in lines] == [("websocket refused", 500)]
    assert (server.statistics.websockets_open, server.statistics.connection_errors) == (0, {})


async def test_who_leaves_while_the_accept_waits_for_him_has_no_seat(app: Application) -> None:
    accepting: list[WebsocketStream] = []

    @app.websocket("/ws")
    async def ws() -> None:
        stream().transport.outbox.push(MORE)
        accepting.append(stream())
        await websocket.accept()
        await websocket.receive()

    async with running(app) as server:
        async with await stalled(server.port, UPGRADE % (b"/ws", b"")) as client:
            await until(lambda: accepting)
            await client.send_eof()
            await until(lambda: accepting[0].closed)
        await gone(server)

        assert (server.statistics.websockets_open, server.websockets.count) == (0, 0)


async def test_a_connection_that_fails_leaves_no_seat(app: Application) -> None:
    @app.websocket("/ws")
    async def ws() -> None:
        await websocket.accept()
        stream().buffer = None  # type: ignore[assignment]  # the next message is an error of the reading task
        await websocket.receive()

    async with running(app) as server, await server.connect() as client:
        await upgrade(client, "/ws")
        await client.send_all(frame(TEXT, b"hello"))
        await gone(server)

        assert server.statistics.connection_errors == {"ExceptionGroup": 1}
        assert (server.statistics.websockets_open, server.websockets.count) == (0, 0)


async def test_a_handler_that_has_closed_may_leave_the_rest_untaken(app: Application, mock_clock: MockClock) -> None:
    mock_clock.rate = 5
    full, over = trio.Event(), list[str]()

    @app.websocket("/ws")
    async def ws() -> None:
        await websocket.accept()
        await full.wait()
        await websocket.close(1000)
        with trio.move_on_after(UNTAKEN_TIMEOUT + 1) as rest:
            try:
                await trio.sleep_forever()
            finally:
                over.append("in time" if rest.cancel_called else "cut")

    async with running(app) as server:
        async with await server.connect() as client:
            reader = await upgrade(client, "/ws")
            await client.send_all(frame(TEXT, b"hello") * 100)
            await trio.testing.wait_all_tasks_blocked(0.1)
            full.set()
            code = await reader.close_code()
            await until(lambda: over, seconds=40)
        await gone(server)

    assert (code, over) == (1000, ["in time"])
    assert (server.statistics.websockets_open, server.statistics.connection_errors) == (0, {})


async def test_what_comes_behind_a_refusal_is_nobodys(app: Application) -> None:
    refused, ended = trio.Event(), trio.Event()

    @app.websocket("/ws")
    async def ws() -> None:
        await websocket.close(1008)
        await refused.wait()
        ended.set()

    async with running(app) as server:
        async with await server.connect() as client:
            await client.send_all(UPGRADE % (b"/ws", b""))
            reader = Reader(client)
            status, _, _ = await reader.response()
            await client.send_all(frame(TEXT, b"hello"))
            await trio.testing.wait_all_tasks_blocked(0.1)
            refused.set()
            rest = await reader.rest()
        await gone(server)

    assert (status, rest) == (403, b"")
    assert ended.is_set()
    assert server.statistics.connection_errors == {}


@pytest.mark.parametrize("answers", [True, False])
async def test_who_is_let_in_behind_the_farewell_is_seen_off_too(app: Application, *, answers: bool) -> None:
    """Its handler looked something up ahead of its accept, and would hold up the end for as long as there is."""
    looking, found = trio.Event(), trio.Event()

    @app.websocket("/ws")
    async def ws() -> None:
        looking.set()
        await found.wait()
        await websocket.accept()
        await websocket.receive()

    async with running(app) as server, await server.connect() as client:
        await client.send_all(UPGRADE % (b"/ws", b""))
        await looking.wait()
        await server.websockets.close_all(CloseReason.SERVICE_RESTART)
        found.set()
        reader = Reader(client)
        status, _, _ = await reader.response()
        code = await reader.close_code()
        if answers:
            await client.send_all(frame(CLOSE, b"\x03\xf4"))
        with trio.fail_after(20):
            await server.websockets.wait_empty()
        await gone(server)

    assert (status, code) == (101, CloseReason.SERVICE_RESTART)
