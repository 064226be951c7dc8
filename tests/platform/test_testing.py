"""What tests lean on sees what is there, also when it comes late, in parts, or just before the end."""

import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.processes import Process, open_websocket
from service.platform.testing.wire import Closed, UpgradeRefused, open_raw
from tests.platform.features import PLAIN

ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
PINGED, RESTARTING = b"\x89\x00", b"\x88\x02\x03\xf4"  # a ping, and a close with 1012
AT_ONCE = struct.pack("ii", 1, 0)  # SO_LINGER: a close is a reset

type Answer = Callable[[trio.SocketStream], Awaitable[None]]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[str]:
    """Yield the URL of a server that answers whoever comes with this."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await answer(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


async def test_a_close_is_told_with_its_code_also_when_nobody_takes_the_answer() -> None:
    """A client that comes late on a busy machine: the server has waited long enough for its answer."""
    gone = trio.Event()

    async def close(stream: trio.SocketStream) -> None:
        await stream.send_all(ACCEPTED + PINGED + RESTARTING)
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
        await stream.aclose()
        gone.set()

    with trio.fail_after(60):
        async with answering(close) as url, open_raw(url, "/ws") as line:
            await gone.wait()
            with pytest.raises(Closed) as closed:
                await line.receive()

    assert closed.value.code == 1012


async def test_a_websocket_that_the_server_ends_leaves_no_socket_behind() -> None:
    async def serve(request: WebSocketRequest) -> None:
        await (await request.accept()).aclose(1012)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            server = await nursery.start(partial(serve_websocket, serve, "127.0.0.1", 0, ssl_context=None))
            with pytest.RaisesGroup(ConnectionClosed, flatten_subgroups=True, allow_unwrapped=True):
                async with open_websocket(f"http://127.0.0.1:{server.port}", "/ws") as line:
                    await line.get_message()
            nursery.cancel_scope.cancel()

    assert isinstance(line._stream, trio.SocketStream)
    assert line._stream.socket.fileno() == -1


async def test_a_refusal_is_told_with_all_of_its_body() -> None:
    async def refuse(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\n")
        for part in (b"no", b"pe"):
            await wait_all_tasks_blocked()
            await stream.send_all(part)

    with trio.fail_after(60):
        async with answering(refuse) as url:
            with pytest.raises(UpgradeRefused) as refused:
                async with open_raw(url, "/ws"):
                    pass

    assert (refused.value.status, refused.value.body) == (503, "nope")


def test_a_line_of_the_log_that_is_being_written_is_none_yet(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    with subprocess.Popen(["true"]) as process:
        service = Process(process, log, tmp_path / "ready.json")
        log.write_bytes('{"event": "one"}\nand {so}\n{"event": "tw\u00f6'.encode()[:-1])
        begun = service.events()
        log.write_bytes('{"event": "one"}\nand {so}\n{"event": "tw\u00f6"}\n'.encode())

        assert begun == [{"event": "one"}]
        assert service.events("tw\u00f6") == [{"event": "tw\u00f6"}]


async def test_an_answer_to_head_is_described_by_that_to_get(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, [PLAIN]) as urls, Client(urls.public) as client:
        with trio.fail_after(60):
            asked = await client.head("/livez")

    assert (asked.status_code, asked.content) == (200, b"")
