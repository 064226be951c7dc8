"""A line to a replica on which everything vanishes from some moment on: no data, no FIN, no RST, in either direction.

Neither side is told. What is lost on a real line is not even acknowledged, so there the kernel gives up as well; here
only what the service does itself can help.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

import trio


class BlackHole:
    """Forwards to the service at `target` until `swallow`; for clients it is at `url`."""

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._swallowing = False
        self.url = ""
        self.lines = 0  # that were opened

    def swallow(self) -> None:
        self._swallowing = True

    async def handle(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream(self._target.hostname or "", self._target.port or 80)
        self.lines += 1
        async with client, server, trio.open_nursery() as nursery:
            nursery.start_soon(self._forward, client, server, nursery.cancel_scope)
            nursery.start_soon(self._forward, server, client, nursery.cancel_scope)

    async def _forward(self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in source:
                if self._swallowing:
                    break
                await target.send_all(data)
        if self._swallowing:
            await trio.sleep_forever()  # an end vanishes like anything else
        scope.cancel()


@asynccontextmanager
async def open_black_hole(target: str) -> AsyncIterator[BlackHole]:
    hole = BlackHole(target)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        hole.url = "http://{}:{}".format(*listeners[0].socket.getsockname()[:2])
        nursery.start_soon(trio.serve_listeners, hole.handle, listeners)
        yield hole
        nursery.cancel_scope.cancel()
