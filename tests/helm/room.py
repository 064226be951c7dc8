"""A room that speaks as much of chat.v1 as a smoke test asks for: `python -m tests.helm.room open_room` serves it."""

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from quart import Blueprint, abort, websocket

import service.__main__ as line
from service.resources import Resources


@asynccontextmanager
async def open_room(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("room", __name__)
    members: set[trio.MemorySendChannel[dict[str, Any]]] = set()

    @routes.websocket("/ws")
    async def converse() -> None:
        await websocket.accept(subprotocol="chat.v1")
        inbox, outbox = trio.open_memory_channel[dict[str, Any]](10)
        members.add(inbox)
        await tell(type="hello")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver, outbox)
            while True:
                frame = json.loads(await websocket.receive())
                if frame["type"] == "join":
                    await tell(type="joined", room=frame["room"], ref=frame["ref"])
                else:
                    await tell(type="ack", id=frame["id"])
                    for member in members:
                        member.send_nowait({**frame, "type": "message"})

    yield routes


@asynccontextmanager
async def open_picky_room(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("room", __name__)

    @routes.websocket("/ws")
    async def converse() -> None:
        if websocket.host != "chat.example.org":
            abort(421)
        await websocket.accept(subprotocol="chat.v1")
        await tell(type="hello")
        await websocket.close(1013, "no")

    yield routes


@asynccontextmanager
async def open_refusing_room(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("room", __name__)

    @routes.websocket("/ws")
    async def converse() -> None:
        await websocket.accept(subprotocol="chat.v1")
        await tell(type="error", code="unavailable", message="the database is away")
        await trio.sleep_forever()

    yield routes


async def deliver(outbox: trio.MemoryReceiveChannel[dict[str, Any]]) -> None:
    async for frame in outbox:
        await tell(**frame)


async def tell(**frame: Any) -> None:
    await websocket.send(json.dumps(frame))


if __name__ == "__main__":
    settings, origins = line.load_or_exit()
    line.prepare_logs(settings)
    line.process(settings, origins, features=[globals()[name] for name in sys.argv[1:]])
