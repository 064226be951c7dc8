"""A small TCP proxy before PostgreSQL: it can lead elsewhere, refuse, fall silent, break a line, and change a word."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import trio


class Proxy:
    """Forwards 127.0.0.1:`port` to 127.0.0.1:`target`; `broken` counts the lines on which the word was said.

    `said` counts what clients have said, by pieces; `swallowed` is what was said on lines that are mute.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.silent = False
        self.broken = 0
        self.said = 0
        self.swallowed = b""
        self._trap = b""
        self._forward_trapped = False
        self._changed = b"", b""
        self._lines: set[trio.CancelScope] = set()
        self._muted: set[_Line] = set()
        self.accepting = trio.CancelScope()

    @property
    def lines(self) -> int:
        """Return how many there are."""
        return len(self._lines)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def cut(self) -> None:
        """Break all lines."""
        for scope in self._lines:
            scope.cancel()

    def reset(self) -> None:
        """Break all lines that have met the server, as a firewall does that forgets them: with a RST."""
        for line in self._muted:
            line.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.scope.cancel()

    def mute(self) -> None:
        """Swallow from now on what is said on the lines that there are; they stay open."""
        for line in self._muted:
            line.mute = line.deaf = True

    def refuse(self) -> None:
        """Take no more lines; those that there are stay."""
        self.accepting.cancel()

    def break_at(self, word: bytes, *, forward: bool) -> None:
        """Break the next line on which a client says `word`, after the server got it or before."""
        self._trap, self._forward_trapped = word, forward

    def change(self, word: bytes, into: bytes) -> None:
        """Tell the server `into`, which is as long, wherever a client says `word`."""
        self._changed = word, into

    async def serve(self, client: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            line = _Line(scope, client)
            self._lines.add(scope)
            with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
                if self.silent:
                    await trio.sleep_forever()
                async with (
                    client,
                    await trio.open_tcp_stream("127.0.0.1", self.target) as server,
                    trio.open_nursery() as nursery,
                ):
                    self._muted.add(line)
                    nursery.start_soon(self._upstream, client, server, line)
                    await self._pump(server, client, line)
                    nursery.cancel_scope.cancel()
        self._lines.discard(scope)
        self._muted = {one for one in self._muted if one.scope is not scope}

    async def _upstream(self, client: trio.SocketStream, server: trio.SocketStream, line: "_Line") -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await client.receive_some():
                self.said += 1
                if line.deaf:
                    self.swallowed += data
                    continue
                if self._trap and self._trap in data:
                    self._trap = b""
                    self.broken += 1
                    if self._forward_trapped:
                        line.mute = True
                        await server.send_all(data)
                        await trio.sleep(0.05)  # the server acts on it; its answer is lost
                    break
                await server.send_all(data.replace(*self._changed) if all(self._changed) else data)
        line.scope.cancel()

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, line: "_Line") -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while data := await source.receive_some():
                if line.mute:
                    continue
                await sink.send_all(data)


@dataclass(eq=False)
class _Line:
    scope: trio.CancelScope
    client: trio.SocketStream
    mute: bool = False  # the client hears nothing more from the server
    deaf: bool = False  # nor does the server from the client


async def _accept(proxy: Proxy, listeners: list[trio.SocketListener], lines: trio.Nursery) -> None:
    with proxy.accepting:
        await trio.serve_listeners(proxy.serve, listeners, handler_nursery=lines)
    for listener in listeners:
        listener.socket.close()


@asynccontextmanager
async def open_proxy(target: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(target)
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy.port = listeners[0].socket.getsockname()[1]
        nursery.start_soon(_accept, proxy, listeners, nursery)
        yield proxy
        nursery.cancel_scope.cancel()
