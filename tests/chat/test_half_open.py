"""A line on which everything vanishes: the service lets the peer go by itself, and the peer comes back complete."""

import httpx2
import pytest
import trio

from service.platform.http.conversations import SILENCE
from service.platform.testing.wire import RawWebsocket
from tests.chat.conftest import Start
from tests.chat.system.black_hole import open_black_hole
from tests.chat.wire import open_raw

LIMIT = 60
PATH = "/api/rooms/lobby/messages"
HEARTBEAT = 0.4
CLOSING = 1.0  # seconds for the peer's close, which does not come
TELLING = 7.5  # seconds until the others are told how many they are, on a busy machine


async def wait_members(line: RawWebsocket, count: int) -> None:
    while (await line.expect("presence"))["count"] != count:
        pass


async def talk(client: httpx2.AsyncClient) -> None:
    while True:
        (await client.post(PATH, json={"text": "x" * 4_000})).raise_for_status()


@pytest.mark.parametrize("busy", [False, True], ids=["idle room", "busy room"])
async def test_a_half_open_member_is_let_go_and_resumes_complete(start: Start, busy: bool) -> None:
    with trio.fail_after(LIMIT):
        service = await start(heartbeat=HEARTBEAT, rate_per_address=0)
        async with (
            open_black_hole(service.url) as hole,
            open_raw(service.url) as other,
            open_raw(hole.url) as lost,
            httpx2.AsyncClient(base_url=service.url) as client,
        ):
            for line in (other, lost):
                await line.send({"type": "join", "room": "lobby", "ref": "r"})
            joined = await lost.expect("joined")
            await wait_members(other, 2)
            hole.swallow()
            begun = trio.current_time()
            async with trio.open_nursery() as nursery:
                if busy:
                    nursery.start_soon(talk, client)
                await wait_members(other, 1)
                took = trio.current_time() - begun
                nursery.cancel_scope.cancel()
            head = (await client.post(PATH, json={"text": "last"})).json()["seq"]
            async with open_raw(service.url) as again:
                since = {"epoch": joined["epoch"], "seq": joined["from"]}
                await again.send({"type": "join", "room": "lobby", "ref": "r", "since": since})
                resumed = await again.expect("joined")
                seqs = [(await again.expect("message"))["seq"] for _ in range(head)]

        assert SILENCE * HEARTBEAT - HEARTBEAT < took < SILENCE * HEARTBEAT + CLOSING + TELLING
        assert (resumed["gap"], seqs) == (False, list(range(1, head + 1)))
        assert head > 10 or not busy
