"""Hypercorn's Trio worker as a child task, with our connections in place of its own."""

import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import run
from hypercorn.trio import serve as serve_hypercorn
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.typing import ASGIFramework

from service.platform.lifecycle import Lifecycle
from service.platform.server.config import Probe, ServerConfig
from service.platform.server.connection import LAST_CALL, ServerConnection
from service.platform.server.statistics import ServerStatistics
from service.platform.server.websockets import Websockets
from service.platform.settings import PlatformSettings


async def serve(  # noqa: ASYNC128  Hypercorn calls task_status.started
    app: ASGIFramework,
    listener: socket.socket,
    *,
    settings: PlatformSettings,
    statistics: ServerStatistics,
    lifecycle: Lifecycle,
    shutdown: Callable[[], Awaitable[object]],
    websockets: Websockets | None = None,
    probes: Mapping[str, Probe] | None = None,
    shared: bool = False,
    spare: int = 0,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve `app` on `listener`, which is closed when it returns: after `shutdown` returns and the rest is done.

    Then requests in flight have the setting's seconds to end. `probes` are answered ahead of everything. On a `shared`
    socket others go on accepting: clients that have just connected, or keep a connection, are not to notice. `spare` is
    how many descriptors are for others: a connection that would take one of them is closed at once.
    `nursery.start` returns the addresses as a list of URLs.
    """
    setattr(run, "TCPServer", _connection)  # noqa: B010  # no seam for it, and its type is not meant to be assigned to
    config = ServerConfig(
        listener,
        settings=settings,
        statistics=statistics,
        lifecycle=lifecycle,
        websockets=websockets or Websockets(),
        probes=probes or {},
        spare=spare,
    )
    await serve_hypercorn(
        app,
        config,
        shutdown_trigger=partial(_shut_down, config, shutdown, shared),
        mode="asgi",
        task_status=task_status,
    )


async def _shut_down(config: ServerConfig, shutdown: Callable[[], Awaitable[object]], shared: bool) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(config.idle.watch)
        await shutdown()
        nursery.cancel_scope.cancel()  # from here on each has a deadline of its own
    config.closing = True
    for connection in tuple(config.connections):
        connection.leave(within=LAST_CALL if shared else 0)
    if not shared:
        with trio.move_on_after(LAST_CALL):  # accepting may fail meanwhile, as without a descriptor left
            await config.doorway.let_in_last()


def _connection(app: Any, config: Config, *args: Any) -> TCPServer:
    """Make what `hypercorn.trio.run` makes per connection; another server in this process keeps its own kind."""
    return ServerConnection(app, config, *args) if isinstance(config, ServerConfig) else TCPServer(app, config, *args)
