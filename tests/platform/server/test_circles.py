"""A connection that is gone leaves the garbage collector nothing, which stops the loop for longer the more is open."""

import gc
from collections.abc import Awaitable, Callable

import pytest
import trio
from hypercorn.protocol.h11 import H11WSConnection
from wsproto.frame_protocol import FrameProtocol

from service.platform.server import Application
from service.platform.server.connection import ServerConnection
from service.platform.server.http_stream import HttpStream
from service.platform.server.outbox import Outbox
from service.platform.server.protocol import H11Connection, Protocol
from service.platform.server.websocket_stream import WebsocketStream
from tests.platform.server.conftest import Server, running
from tests.platform.server.test_see_off import ends
from tests.platform.server.wire import CLOSE, TEXT, UPGRADE, Reader, frame, get, upgrade

KINDS = (
    FrameProtocol, H11Connection, H11WSConnection, HttpStream, Outbox, Protocol, ServerConnection, WebsocketStream,
)  # fmt: skip
TIMES = 10


async def ask(server: Server, path: str) -> None:
    async with await server.connect() as client:
        await client.send_all(get(path))
        await Reader(client).response()


async def leave(server: Server, path: str) -> None:
    async with await server.connect() as client:
        await upgrade(client, path)


async def say_something_and_leave(server: Server) -> None:
    async with await server.connect() as client:
        reader = await upgrade(client, "/echo")
        await client.send_all(frame(TEXT, b"hello"))
        await reader.frame()


async def close(server: Server) -> None:
    async with await server.connect() as client:
        reader = await upgrade(client, "/echo")
        await client.send_all(frame(TEXT, b"hello") + frame(CLOSE, b"\x03\xe8"))
        assert await reader.close_code() == 1000


async def break_the_protocol(server: Server) -> None:
    async with await server.connect() as client:
        reader = await upgrade(client, "/echo")
        await client.send_all(frame(TEXT, b"hello", masked=False))
        assert await reader.close_code() == 1002


async def fail(server: Server) -> None:
    async with await server.connect() as client:
        assert await (await upgrade(client, "/fail")).close_code() == 1011


async def ask_for_a_websocket_that_there_is_not(server: Server) -> None:
    async with await server.connect() as client:
        await client.send_all(UPGRADE % (b"/nowhere", b""))
        assert (await Reader(client).response())[0] == 404


async def be_seen_off(server: Server) -> None:
    async with await server.connect() as client:
        assert await (await upgrade(client, "/end")).close_code() == 4401


ENDS = {
    "answered": lambda server: ask(server, "/"),
    "no route": lambda server: ask(server, "/nowhere"),
    "fails": lambda server: ask(server, "/error"),
    "fails in a group": lambda server: ask(server, "/group"),
    "cut": lambda server: leave(server, "/echo"),
    "cut later": say_something_and_leave,
    "cut in a nursery": lambda server: leave(server, "/nursery"),
    "closed": close,
    "faulty": break_the_protocol,
    "handler fails": fail,
    "seen off": be_seen_off,
    "no websocket": ask_for_a_websocket_that_there_is_not,
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
async def test_what_is_over_is_let_go_at_once(
    safe_app: Application, uncollected: None, end: Callable[[Server], Awaitable[None]]
) -> None:
    others = {id(one) for one in of_connections()}
    async with running(ends(safe_app, seen_off_in=0.2)) as server:
        for _ in range(TIMES):
            await end(server)
        with trio.fail_after(10):
            while server.statistics.connections_open:
                await trio.sleep(0.01)
        left = [type(one).__name__ for one in of_connections() if id(one) not in others]

    assert left == []


def of_connections() -> list[object]:
    return [one for one in gc.get_objects() if issubclass(type(one), KINDS)]
