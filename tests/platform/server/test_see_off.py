"""The end of one websocket of many: its peer sees it at once, and is answered when there is time."""

import gc
import socket

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.server import Application, CloseReason, encode_frame, websocket
from service.platform.server.connection import ServerConnection
from tests.platform.server.conftest import Server, running
from tests.platform.server.wire import CLOSE, Reader, frame, upgrade

CODE = 4401


def ends(app: Application, *, seen_off_in: float, first: str = "") -> Application:
    """Add a websocket that ends at once, as one of many."""

    @app.websocket("/end")
    @anyone
    @unlimited("a test's")
    async def end() -> None:
        await websocket.accept()
        if first:
            websocket.outbox.send_nowait(encode_frame(first))
        websocket.see_off(trio.current_time() + seen_off_in)
        await websocket.close(CODE, "over")

    return app


async def see_end(client: trio.SocketStream) -> Reader:
    """Open it, and see its close frame and the end of what comes."""
    reader = await upgrade(client, "/end")
    assert await reader.close_code() == CODE
    with pytest.raises(EOFError):
        await reader.exactly(1)
    return reader


async def until_gone(server: Server) -> None:
    with trio.fail_after(10):
        while server.statistics.connections_open or server.statistics.websockets_open:
            await trio.sleep(0.01)


def connections() -> list[ServerConnection]:
    return [one for one in gc.get_objects() if type(one) is ServerConnection]  # isinstance would ask a proxy's object


async def test_its_peer_sees_the_end_at_once_and_its_answer_is_read_later(
    app: Application, mock_clock: MockClock
) -> None:
    """The clock stands still but for its jumps, so that a busy machine makes nothing late."""
    async with running(ends(app, seen_off_in=10)) as server:
        async with await server.connect() as client:
            await see_end(client)
            await client.send_all(frame(CLOSE, CODE.to_bytes(2)))
        mock_clock.jump(9.9)
        await wait_all_tasks_blocked()
        waiting = server.statistics.connections_open
        mock_clock.jump(0.2)
        mock_clock.rate = 1
        await until_gone(server)

        assert waiting == 1
        assert server.statistics.closes == {str(CODE): 1}


async def test_a_peer_that_leaves_meanwhile_costs_nothing(app: Application) -> None:
    async with running(ends(app, seen_off_in=0.2)) as server:
        async with await server.connect() as client:
            await see_end(client)
        await until_gone(server)

        assert not server.statistics.connection_errors


async def test_a_peer_that_does_not_answer_is_let_go_of(app: Application) -> None:
    async with running(ends(app, seen_off_in=0.2)) as server, await server.connect() as client:
        await see_end(client)
        await until_gone(server)


async def test_who_reads_slowly_gets_what_waits_for_it_and_then_the_close(app: Application) -> None:
    large = "x" * 900_000  # more than the kernel takes at once
    async with running(ends(app, seen_off_in=0.5, first=large)) as server, await server.connect() as client:
        reader = await upgrade(client, "/end")
        assert (await reader.frame())[1] == large.encode()
        assert await reader.close_code() == CODE


async def test_what_waits_for_a_slow_reader_is_not_held_back_for_the_end(app: Application) -> None:
    large = "x" * 10_000_000
    others = {id(one) for one in connections()}
    async with running(ends(app, seen_off_in=3600, first=large)) as server, await server.connect() as client:
        await upgrade(client, "/end")
        (connection,) = (one for one in connections() if id(one) not in others)
        while not (connection.outbox.waiting_bytes and server.statistics.closes):
            await trio.sleep(0.01)

        assert not connection.stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK)


async def test_a_drain_does_not_wait_for_it(app: Application) -> None:
    async with running(ends(app, seen_off_in=3600)) as server, await server.connect() as client:
        await see_end(client)
        server.lifecycle.start_draining()
        await server.websockets.close_all(CloseReason.SERVICE_RESTART)
        await until_gone(server)
