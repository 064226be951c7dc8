"""A line to PostgreSQL that can be cut at the worst moment: after COMMIT was sent and before its answer came back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

COMMIT = b"COMMIT\0"


class CuttingProxy:
    """Forwards to PostgreSQL's port. Once armed, it cuts the next line on which a COMMIT goes by."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = 0
        self.armed = False
        self.cuts = 0

    async def handle(self, client: trio.SocketStream) -> None:
        try:
            server = await trio.open_tcp_stream("127.0.0.1", self._target)
        except OSError:
            await client.aclose()
            return
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._forward, client, server, nursery.cancel_scope)
            nursery.start_soon(self._forward, server, client, nursery.cancel_scope)

    async def _forward(self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            async for data in source:
                await target.send_all(data)
                if self.armed and COMMIT in data:
                    self.armed = False
                    self.cuts += 1
                    break
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        scope.cancel()


@asynccontextmanager
async def open_cutting_proxy(port: int) -> AsyncIterator[CuttingProxy]:
    proxy = CuttingProxy(port)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, proxy.handle, listeners)
        yield proxy
        nursery.cancel_scope.cancel()
