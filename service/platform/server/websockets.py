"""The open websockets of one listener, so that the drain can count them and close them all."""

from typing import Protocol

import trio
from wsproto.frame_protocol import CloseReason


class Closable(Protocol):
    """What an open websocket can do for the drain."""

    async def shut(self, code: int) -> None:
        """Close with this code, wait at most a second for the peer's close, and end the handler."""


class Websockets:
    """One per process, shared with whoever drains it."""

    def __init__(self) -> None:
        self.farewell: CloseReason | None = None  # of `close_all`: whoever is let in behind it is to go as well
        self._open: set[Closable] = set()
        self._empty = trio.Event()
        self._empty.set()

    @property
    def count(self) -> int:
        return len(self._open)

    def add(self, websocket: Closable) -> None:
        if not self._open:
            self._empty = trio.Event()
        self._open.add(websocket)

    def discard(self, websocket: Closable) -> None:
        self._open.discard(websocket)
        if not self._open:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Return when no websocket is open."""
        await self._empty.wait()

    async def close_all(self, code: CloseReason) -> None:
        """Close every open websocket, all at once; takes no longer than the slowest, which is about a second."""
        self.farewell = code
        async with trio.open_nursery() as nursery:
            for websocket in tuple(self._open):
                nursery.start_soon(websocket.shut, code)

    def __contains__(self, websocket: object) -> bool:
        return websocket in self._open
