"""The verbs' websocket: however it ends, who sends and who receives hear of it in one way."""

import pytest
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Request

from service.platform.client import ClosedError, WebsocketClient


async def accepted() -> tuple[WebsocketClient, WSConnection, trio.abc.Stream]:
    """Return a client whose handshake is done, and the server's side of it."""
    ours, theirs = trio.testing.memory_stream_pair()
    client, server = WebsocketClient(ours, "x"), WSConnection(ConnectionType.SERVER)
    await client.request("/", subprotocol="p")
    server.receive_data(bytes(await theirs.receive_some()))
    assert isinstance(next(server.events()), Request)
    await theirs.send_all(server.send(AcceptConnection(subprotocol="p")))
    return client, server, theirs


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
