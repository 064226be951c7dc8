"""The verbs' websocket: however it ends, who sends and who receives hear of it in one way."""

import pytest
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

from service.platform.client import ClosedError, WebsocketClient


async def accepted() -> tuple[WebsocketClient, WSConnection, trio.abc.Stream]:
    """Return a client that has been greeted, and the server's side of it."""
    ours, theirs = trio.testing.memory_stream_pair()
    return *await greeted(ours, theirs), theirs


async def greeted(ours: trio.abc.Stream, theirs: trio.abc.Stream) -> tuple[WebsocketClient, WSConnection]:
    client, server = WebsocketClient(ours, "x"), WSConnection(ConnectionType.SERVER)
    await client.request("/", subprotocol="p")
    server.receive_data(bytes(await theirs.receive_some()))
    assert isinstance(next(server.events()), Request)
    await theirs.send_all(server.send(AcceptConnection(subprotocol="p")) + server.send(TextMessage(data="{}")))
    assert await client.receive() == {}
    return client, server


async def test_what_is_sent_after_the_peer_s_close_is_told_of_it() -> None:
    client, server, theirs = await accepted()
    await theirs.send_all(server.send(CloseConnection(code=1012)))

    with pytest.raises(ClosedError) as received:
        await client.receive()
    with pytest.raises(ClosedError) as sent:
        await client.send({"type": "send"})

    assert (received.value.code, sent.value.code) == (1012, 1012)


async def test_a_fault_of_the_peer_is_an_end_as_well() -> None:
    client, _, theirs = await accepted()
    await theirs.send_all(b"\xff\xff\xff\xff")

    with pytest.raises(ClosedError):
        await client.receive()
    with pytest.raises(ClosedError):
        await client.send({"type": "send"})


async def read_close(server: WSConnection, theirs: trio.abc.Stream) -> CloseConnection | None:
    """Return the close that comes next, or None if the stream ends without one."""
    while data := bytes(await theirs.receive_some()):
        server.receive_data(data)
        for event in server.events():
            if isinstance(event, CloseConnection):
                return event
    return None


async def test_who_leaves_says_so_and_waits_for_the_answer() -> None:
    """RFC 6455, 7.1.1; without it the service counts an end by 1006, as of who was cut off."""
    client, server, theirs = await accepted()
    answered = False
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def _answer() -> None:
            nonlocal answered
            close = await read_close(server, theirs)
            assert close is not None
            assert close.code == 1000
            await trio.testing.wait_all_tasks_blocked()
            answered = True
            await theirs.send_all(server.send(close.response()))

        with trio.CancelScope() as scope:
            async with client:
                scope.cancel()
                await client.receive()
        assert answered


async def test_a_peer_s_close_is_answered_with_its_code() -> None:
    client, server, theirs = await accepted()
    await theirs.send_all(server.send(CloseConnection(code=1012)))

    with pytest.raises(ClosedError):
        async with client:
            await client.receive()

    close = await read_close(server, theirs)
    assert close is not None
    assert close.code == 1012


async def test_who_gets_no_answer_to_its_close_does_not_wait_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    client, _, _ = await accepted()
    begun = trio.current_time()
    async with client:
        pass

    assert 0 < trio.current_time() - begun <= 1


async def test_nothing_is_written_behind_what_may_be_half_a_frame(autojump_clock: trio.testing.MockClock) -> None:
    """How much of what was cancelled is on the wire is not known; a close would be read as the frame's other half."""
    ours, theirs = trio.testing.memory_stream_pair()
    client, _ = await greeted(ours, theirs)
    pump = ours.send_stream.send_all_hook
    assert pump is not None

    async def stall() -> None:
        await pump()
        await trio.sleep_forever()

    async with client:
        ours.send_stream.send_all_hook = stall
        with trio.move_on_after(1):
            await client.send({"type": "x"})
        ours.send_stream.send_all_hook = pump
        assert await theirs.receive_some()
    await ours.aclose()

    assert await theirs.receive_some() == b""
