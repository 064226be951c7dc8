"""Small apps on our server and on the stack as it comes, each on a real socket of this machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from service.lifecycle import Lifecycle
from service.server import Application, Statistics, Websockets, open_listener, serve
from service.settings import Settings

SECONDS = 10


def make_settings(**changes: Any) -> Settings:
    """Return settings that no environment of the machine reaches into."""
    return Settings(**Settings.model_construct().model_dump() | changes)


@dataclass
class Server:
    """A running server and what a test looks at."""

    address: tuple[str, int]
    statistics: Statistics = field(default_factory=Statistics)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    websockets: Websockets = field(default_factory=Websockets)
    stop: trio.Event = field(default_factory=trio.Event)
    stopped: trio.Event = field(default_factory=trio.Event)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.address)


@asynccontextmanager
async def running(app: Any, settings: Settings | None = None, **options: Any) -> AsyncIterator[Server]:
    """Serve `app` for the length of the block."""
    listener = open_listener("127.0.0.1:0")
    server = Server(listener.getsockname())

    async def run(*, task_status: trio.TaskStatus[Any]) -> None:
        await serve(
            app,
            listener,
            settings=settings or make_settings(),
            statistics=server.statistics,
            lifecycle=server.lifecycle,
            websockets=server.websockets,
            shutdown=server.stop.wait,
            task_status=task_status,
            **options,
        )
        server.stopped.set()

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(run)
            yield server
            nursery.cancel_scope.cancel()


@pytest.fixture
def app() -> Application:
    return Application("tests", settings=make_settings())
