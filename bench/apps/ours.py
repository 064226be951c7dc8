"""Our stack, with all that a request passes in production: headers, the log line, who gets in, the deadline."""

import sys
from contextlib import AsyncExitStack
from functools import partial

import trio
from quart import Blueprint, request
from sqlalchemy import Connection, text

from service.platform.database import Database, open_database
from service.platform.http.app import create_app, surround
from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.inside.readings import show_server
from service.platform.lifecycle import Lifecycle
from service.platform.server import (
    FrameOutbox,
    RateLimits,
    ServerStatistics,
    TooSlowError,
    encode_frame,
    listener_url,
    open_listener,
    serve,
    websocket,
)
from service.platform.settings import PlatformSettings
from service.platform.telemetry.logs import configure_logs
from service.platform.telemetry.metrics import Metrics


def select_item(connection: Connection, number: int) -> dict[str, object]:
    row = connection.execute(text("SELECT id, text FROM items WHERE id = :id"), {"id": number}).one()
    return {"id": row.id, "text": row.text}


def insert_item(connection: Connection, words: str) -> int:
    found: int = connection.execute(
        text("INSERT INTO items (text) VALUES (:text) RETURNING id"), {"text": words}
    ).scalar_one()
    return found


def create_routes(database: Database | None) -> Blueprint:
    routes = Blueprint("bench", __name__)
    members: set[FrameOutbox] = set()

    @routes.get("/hello")
    @anyone
    @unlimited("measured")
    async def hello() -> dict[str, str]:
        return {"message": "hello"}

    @routes.get("/much")
    @anyone
    @unlimited("measured")
    async def much() -> bytes:
        return bytes(4 << 20)

    if database is not None:

        @routes.get("/items/<int:number>")
        @anyone
        @unlimited("measured")
        async def get_item(number: int) -> dict[str, object]:
            return await database.read(select_item, number=number)

        @routes.post("/items")
        @anyone
        @unlimited("measured")
        async def post_item() -> tuple[dict[str, int], int]:
            posted = await request.get_json()
            return {"id": await database.run(insert_item, words=posted["text"])}, 201

    @routes.websocket("/ws")
    @anyone
    @unlimited("measured")
    async def room() -> None:
        await websocket.accept()
        outbox = websocket.outbox
        members.add(outbox)
        try:
            while True:
                said = encode_frame(str(await websocket.receive()))
                for member in tuple(members):
                    try:
                        member.send_nowait(said)
                    except TooSlowError:
                        members.discard(member)
        finally:
            members.discard(outbox)

    return routes


async def main(database_url: str) -> None:
    settings = PlatformSettings(
        database_url=database_url or None, max_requests=10_000, rate_per_address=0, database_queue_wait=30
    )
    lifecycle, statistics, limits = Lifecycle(), ServerStatistics(), RateLimits(0)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings)) if database_url else None
        app = surround(
            create_app([create_routes(database)], settings),
            settings,
            lifecycle=lifecycle,
            statistics=statistics,
            limits=limits,
            observe=show_server(Metrics(), statistics),
        )
        listener = open_listener("127.0.0.1:0")
        start = partial(
            serve,
            app,
            listener,
            settings=settings,
            statistics=statistics,
            lifecycle=lifecycle,
            shutdown=trio.sleep_forever,
            probes={"/livez": lambda: (200, b'{"status": "ok"}')},
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(start)
            print(listener_url(listener).rpartition(":")[2], flush=True)


if __name__ == "__main__":
    configure_logs("info", "json")  # a line for each request, as in production; the other side writes none
    trio.run(partial(main, sys.argv[1] if len(sys.argv) > 1 else ""))
