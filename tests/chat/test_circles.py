"""A member that is gone leaves the garbage collector nothing, which stops the loop for longer the more are there."""

import gc

import pytest
import trio

from service.chat.conversation import Membership, RoomsConversation
from service.chat.protocol import SUBPROTOCOL
from service.chat.room import Seat
from service.chat.simple import SimpleConversation
from service.platform.http.conversations import Conversation
from service.platform.server.websocket import Websocket
from service.platform.testing.wire import RawWebsocket
from tests.chat.conftest import Start
from tests.chat.wire import open_raw

KINDS = (Conversation, Membership, RoomsConversation, Seat, SimpleConversation, Websocket)


@pytest.mark.parametrize("protocol", [SUBPROTOCOL, None], ids=["structured", "simple"])
async def test_a_member_who_left_is_let_go_at_once(start: Start, uncollected: None, protocol: str | None) -> None:
    with trio.fail_after(30):
        service = await start(rate_per_address=0)
        async with open_raw(service.url, protocol=protocol) as other:
            await join(other, protocol)
            stays = count()
            for _ in range(10):
                async with open_raw(service.url, protocol=protocol) as line:
                    await join(line, protocol)
            while count() > stays:
                await trio.sleep(0.01)


async def join(line: RawWebsocket, protocol: str | None) -> None:
    if protocol is None:
        await line.send("hello")
    else:
        await line.send({"type": "join", "room": "one", "ref": "1"})
        await line.expect("joined")


def count() -> int:
    return sum(issubclass(type(one), KINDS) for one in gc.get_objects())
