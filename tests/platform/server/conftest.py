"""Small apps on our server and on the stack as it comes, each on a real socket of this machine."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import hypercorn.trio
import pytest
import trio
from quart_trio import QuartTrio

from service.platform.lifecycle import Lifecycle
from service.platform.server import Application, ServerStatistics, Websockets, open_listener, serve
from service.platform.settings import PlatformSettings
from tests.platform.server.child import add_routes, bare_config, make_settings


@dataclass
class Server:
    """A running server and what a test looks at."""

    port: int
    statistics: ServerStatistics = field(default_factory=ServerStatistics)
    lifecycle: Lifecycle = field(default_factory=Lifecycle)
    websockets: Websockets = field(default_factory=Websockets)
    stop: trio.Event = field(default_factory=trio.Event)
    stopped: trio.Event = field(default_factory=trio.Event)

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@asynccontextmanager
async def running(
    app: Any, settings: PlatformSettings | None = None, *, listener: socket.socket | None = None, **options: Any
) -> AsyncIterator[Server]:
    """Serve `app` on our server for the length of the block."""
    listener = listener or open_listener("127.0.0.1:0")
    server = Server(0 if listener.family == socket.AF_UNIX else listener.getsockname()[1])

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


@asynccontextmanager
async def running_bare(app: Any, **options: Any) -> AsyncIterator[Server]:
    """Serve `app` on Hypercorn's Trio worker as it comes."""
    stop = trio.Event()

    async def run(*, task_status: trio.TaskStatus[Any]) -> None:
        config = bare_config(quiet=True, **options)
        await hypercorn.trio.serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(run)
            yield Server(int(addresses[0].rpartition(":")[2]), stop=stop)
            nursery.cancel_scope.cancel()


@pytest.fixture
def app() -> Application:
    """An app of ours without routes."""
    return Application("tests", settings=make_settings())


@pytest.fixture
def safe_app() -> Application:
    """The child's app, in this process, on our base."""
    return add_routes(Application("safe", settings=make_settings()))


@pytest.fixture
def bare_app() -> QuartTrio:
    """The child's app, in this process, as the framework comes."""
    return add_routes(QuartTrio("bare"))
