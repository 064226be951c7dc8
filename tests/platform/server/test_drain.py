"""D2, D3: at SIGTERM every websocket is told, what was accepted is answered, and idle connections are let go."""

import gc
import os
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import trio
from quart import Response

from service.platform.server import Application, CloseReason, open_listener
from service.platform.server.connection import ServerConnection
from service.platform.server.http_stream import EXTENSION
from tests.platform.server.child import make_settings
from tests.platform.server.conftest import running
from tests.platform.server.processes import Child, child
from tests.platform.server.test_websockets import until
from tests.platform.server.wire import CLOSE, UPGRADE, Reader, frame, get, stalled, upgrade

MEMBERS, CALLERS = 500, 50


async def test_at_sigterm_all_of_500_websockets_see_1012_and_no_request_is_lost(tmp_path: Path) -> None:
    codes: list[int | str] = []
    answers: list[bytes] = []
    heads: list[bytes] = []
    joined = 0

    async def member(server: Child) -> None:
        nonlocal joined
        async with await server.connect() as client:
            reader = await upgrade(client)
            joined += 1
            try:
                codes.append(await reader.close_code())
                await client.send_all(frame(CLOSE, b"\x03\xf4"))
                await reader.rest()
            except (EOFError, trio.BrokenResourceError) as error:
                codes.append(type(error).__name__)

    async def caller(server: Child) -> None:
        async with await server.connect() as client:
            await client.send_all(get("/slow/2.0"))
            _, head, body = await Reader(client).response()
            heads.append(head.lower())
            answers.append(body)

    async with child("safe", tmp_path / "log") as server, trio.open_nursery() as nursery:
        for _ in range(MEMBERS):
            nursery.start_soon(member, server)
        while joined < MEMBERS:
            await trio.sleep(0.02)
        idle = await server.connect()
        for _ in range(CALLERS):
            nursery.start_soon(caller, server)
        while await in_flight(server) + len(answers) < CALLERS:
            await trio.sleep(0.02)
        started = trio.current_time()
        server.terminate()
        assert await server.is_gone_within(30)
        print(f"drained {MEMBERS} websockets and {CALLERS} requests in {trio.current_time() - started:.2f} s")
        assert await idle.receive_some() == b""
        await idle.aclose()

    assert server.process.returncode == 0
    assert codes == [1012] * MEMBERS
    assert answers == [b"done"] * CALLERS
    assert all(b"connection: close" in head for head in heads)


async def in_flight(server: Child) -> int:
    """Return how many requests the server has begun and not answered."""
    async with await server.connect() as client:
        await client.send_all(get("/in-flight"))
        return int((await Reader(client).response())[2])


async def test_trap_at_sigterm_websockets_see_a_bare_eof_on_the_stack_as_it_comes(tmp_path: Path) -> None:
    async with child("bare", tmp_path / "log", graceful_timeout=0.5) as server, await server.connect() as client:
        reader = await upgrade(client)
        server.terminate()

        with trio.fail_after(5), pytest.raises(EOFError):
            await reader.close_code()


async def test_an_idle_connection_is_let_go_at_the_end_and_a_request_on_its_way_is_answered(
    safe_app: Application,
) -> None:
    async with running(safe_app) as server, await server.connect() as idle, await server.connect() as late:
        for client in (idle, late):
            await client.send_all(get("/"))
            await Reader(client).response()
        await late.send_all(get("/"))
        server.stop.set()
        started = trio.current_time()
        with trio.fail_after(5):
            assert (await Reader(late).response())[2] == b"hello"
            assert await late.receive_some() == b""
            assert await idle.receive_some() == b""
            await idle.aclose()
            await late.aclose()
            await server.stopped.wait()

    assert trio.current_time() - started < 5


async def test_who_has_connected_and_not_asked_yet_is_answered_at_the_end(safe_app: Application) -> None:
    """A proxy's request follows its connection, by as long as the way takes."""
    async with running(safe_app) as server, await server.connect() as idle, await server.connect() as fresh:
        await idle.send_all(get("/"))
        await Reader(idle).response()
        server.stop.set()
        assert await idle.receive_some() == b""  # the end has begun
        await fresh.send_all(get("/"))
        _, head, body = await Reader(fresh).response()
        await idle.aclose()

    assert body == b"hello"
    assert b"connection: close" in head.lower()


async def test_a_kept_connection_is_ended_in_the_moment_in_which_nothing_was_asked(safe_app: Application) -> None:
    """Its peer must hear of it before it asks again: a POST on it is one that no proxy sends a second time."""
    async with running(safe_app) as server, await server.connect() as idle:
        await idle.send_all(get("/"))
        await Reader(idle).response()
        connections = [
            one for one in gc.get_objects() if type(one) is ServerConnection and one.stream.socket.fileno() >= 0
        ]
        [ours] = [one for one in connections if one.stream.socket.getpeername() == idle.socket.getsockname()]
        ours.leave()

        assert os.read(idle.socket.fileno(), 1) == b""


def leaving(app: Application) -> Any:
    """Wrap `app` so that the end comes with its answer, before the task that reads has its turn."""

    async def leave(scope: Any, receive: Any, send: Any) -> None:
        transport = scope["extensions"][EXTENSION].transport if scope["type"] == "http" else None
        await app(scope, receive, send)
        if transport is not None:
            transport.config.closing = True  # as `serve` does it
            transport.leave()

    return leave


async def test_a_request_that_came_behind_another_is_answered_at_the_end(safe_app: Application) -> None:
    """Pipelined: it is here, and waits for the answer to the first, behind which the connection is let go."""
    async with running(leaving(safe_app)) as server, await server.connect() as client:
        await client.send_all(get("/") * 2)
        reader = Reader(client)
        answers = [await reader.response() for _ in range(2)]
        rest = await reader.rest()

    assert [status for status, _, _ in answers] == [200, 200]
    assert b"connection: close" in answers[1][1].lower()
    assert rest == b""


async def test_a_request_that_came_behind_one_that_is_answered_in_parts_is_answered_at_the_end(
    app: Application,
) -> None:
    """The first answer's head was gone before the end, and could not say that no other follows."""
    listener, begun, go = open_listener("127.0.0.1:0"), trio.Event(), trio.Event()

    @app.get("/parts")
    async def parts() -> Response:
        async def each() -> AsyncIterator[bytes]:
            yield b"first"
            begun.set()
            await go.wait()
            yield b"last"

        return Response(each())

    @app.get("/")
    async def hello() -> str:
        return "hello"

    async with running(app, listener=listener) as server, await server.connect() as client:
        await client.send_all(get("/parts") + get("/"))
        await begun.wait()
        server.stop.set()
        await until(lambda: listener.fileno() < 0)
        go.set()
        reader = Reader(client)
        await reader.until(b"0\r\n\r\n")  # the end of the parts
        with trio.fail_after(20):
            status, head, _ = await reader.response()
            rest = await reader.rest()

    assert (status, rest) == (200, b"")
    assert b"connection: close" in head.lower()


async def test_an_empty_line_that_came_behind_a_request_holds_up_no_end(safe_app: Application) -> None:
    """Some clients end a body with one. It is no request, for which the connection would have to be kept."""
    async with running(leaving(safe_app)) as server, await server.connect() as client:
        await client.send_all(get("/") + b"\r\n")
        reader = Reader(client)
        status, _, _ = await reader.response()
        with trio.fail_after(20):
            rest = await reader.rest()

    assert (status, rest) == (200, b"")


async def test_who_has_connected_before_the_end_is_let_in_and_answered(safe_app: Application) -> None:
    """The kernel takes connections before we do: on a busy machine some still wait when the listener closes."""
    async with running(safe_app) as server:
        with ExitStack() as stack:
            waiting = [
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(CALLERS)
            ]
            for one in waiting:
                one.sendall(get("/"))
            server.stop.set()
            with trio.fail_after(20):
                await server.stopped.wait()
            answers = [one.recv(65_536) for one in waiting]

    assert [answer[9:12] for answer in answers] == [b"200"] * CALLERS


async def test_peers_that_do_not_read_hold_up_the_farewell_for_a_second(safe_app: Application) -> None:
    async with running(safe_app) as server:
        clients = [await stalled(server.port, UPGRADE % (b"/pump", b"")) for _ in range(10)]
        while server.websockets.count < len(clients):
            await trio.sleep(0.01)
        started = trio.current_time()
        await server.websockets.close_all(CloseReason.SERVICE_RESTART)
        took = trio.current_time() - started
        for client in clients:
            await client.aclose()

    assert took < 5
    assert server.websockets.count == 0


async def test_what_takes_longer_than_the_grace_is_cut(safe_app: Application) -> None:
    async with running(safe_app, make_settings(graceful_timeout=0.3)) as server, await server.connect() as client:
        await client.send_all(get("/slow/60.0"))
        await trio.sleep(0.1)
        server.stop.set()
        with trio.fail_after(10):
            await server.stopped.wait()
