"""What both modes share: one nursery per websocket, with the heartbeat beside the receive loop, and one way to end.

Whatever ends one of the two ends both, and the goodbye is said after that, in one place.
"""

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import trio
from quart.wrappers.base import ClientDisconnectedError

from service.chat.protocol import Close
from service.chat.rooms import Rooms
from service.chat.rules import Rule, check
from service.chat.statistics import ChatStatistics
from service.chat.writer import Writer
from service.platform.http import wait_signed_out
from service.platform.lifecycle import Lifecycle
from service.platform.server import Frame, RateLimits, TooSlowError, Websocket
from service.platform.settings import PlatformSettings

SILENCE = 2.5  # heartbeats without a sign of life


@dataclass(frozen=True, slots=True)
class Ending:
    """How a connection is ended by us; `reconnect_after` is the window in which the client should come back, in ms."""

    code: Close
    reason: str
    reconnect_after: tuple[int, int] = (500, 5_000)


RESTART = Ending(Close.RESTART, "restart", (100, 2_000))
TOO_SLOW = Ending(Close.TOO_SLOW, "too slow")
SILENT = Ending(Close.SILENT, "silent")
FLOODING = Ending(Close.RATE, "too many messages", (10_000, 30_000))


@dataclass(frozen=True, slots=True, eq=False)
class Chat:
    """What the connections of one process share."""

    settings: PlatformSettings
    lifecycle: Lifecycle
    rooms: Rooms
    writer: Writer
    limits: RateLimits
    replica: str
    heartbeat: float  # seconds
    rule: Rule = check
    statistics: ChatStatistics = field(default_factory=ChatStatistics)
    connections: "set[ChatSocket]" = field(default_factory=set)

    async def say_goodbye(self) -> None:
        """At the drain, end each connection at a random moment, so that they do not all come back at once."""
        await self.lifecycle.wait_leaving()
        start = trio.current_time()
        spread = self.settings.drain_spread
        moments = [(start + random.uniform(0, spread), connection) for connection in self.connections]  # noqa: S311
        for moment, connection in sorted(moments, key=lambda pair: pair[0]):
            await trio.sleep_until(moment)
            connection.end(RESTART)


class ChatSocket:
    """One websocket. `end` may be called from anywhere, also from within a room's fan-out: it never waits."""

    def __init__(self, chat: Chat, socket: Websocket) -> None:
        self.chat = chat
        self.socket = socket
        self.address = socket.remote_addr or ""
        self._send_nowait = socket.outbox.send_nowait  # looked up once: a room calls it for each member and message
        self._scope = trio.CancelScope()
        self._ending: Ending | None = None
        self._overflowed = False

    def send_frame(self, frame: Frame) -> None:
        """Write or queue a frame. After one that found no room nothing is sent: a gap would be silent."""
        if self._overflowed:
            return
        try:
            self._send_nowait(frame)
        except TooSlowError:
            self._overflowed = True
            self.chat.statistics.overflows += 1
            self.end(TOO_SLOW)

    def end(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            self._scope.cancel()

    async def run(
        self, receive: Callable[[trio.Nursery], Awaitable[None]], say_goodbye: Callable[[Ending], Awaitable[None]]
    ) -> None:
        """Converse until the peer leaves, or `end` is called; then `say_goodbye`, unless it is too slow to hear it."""
        self.chat.connections.add(self)
        if self.chat.lifecycle.leaving:
            self.end(RESTART)  # it was let in a moment before
        try:
            with self._scope:
                await self._converse(receive)
            if self._ending is not None:
                if not self._overflowed:
                    await say_goodbye(self._ending)
                await self.socket.close(self._ending.code, self._ending.reason)
        finally:
            self.chat.connections.discard(self)

    async def _watch_sign_out(self) -> None:
        self.end(Ending(Close.SIGNED_OUT, await wait_signed_out()))

    async def _converse(self, receive: Callable[[trio.Nursery], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._heartbeat)
            nursery.start_soon(self._watch_sign_out)
            with suppress(ClientDisconnectedError):  # how most conversations end
                await receive(nursery)
            nursery.cancel_scope.cancel()

    async def _heartbeat(self) -> None:
        next_ping = trio.current_time() + self.chat.heartbeat
        while True:
            silent_at = self.socket.last_received + SILENCE * self.chat.heartbeat
            await trio.sleep_until(min(next_ping, silent_at))
            now = trio.current_time()
            if now >= self.socket.last_received + SILENCE * self.chat.heartbeat:
                self.end(SILENT)
            if now >= next_ping:
                next_ping = now + self.chat.heartbeat
                await self.socket.ping()
