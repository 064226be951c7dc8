"""What every conversation over a websocket needs: a heartbeat, limits, and an end that is said in one place.

Whatever ends one ends all of its tasks, and the goodbye comes after that. At the drain each is ended at a moment of its
own. What is said in between is the feature's.
"""

import heapq
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, cast

import trio
from quart.globals import app_ctx
from quart.wrappers.base import ClientDisconnectedError

from service.platform.errors import Unavailable, leaves
from service.platform.feature import Resources
from service.platform.http.callers import may_be_signed_out, wait_signed_out
from service.platform.identity import SIGNED_OUT
from service.platform.lifecycle import Lifecycle
from service.platform.server import CloseReason, Frame, RateLimits, TokenBucket, TooSlowError, Websocket

HEARTBEAT = 20.0  # seconds; most proxies close a connection that is silent for a minute
SILENCE = 2.5  # heartbeats without a sign of life
LAST_CALL = 2.0  # of them, after which it is pinged once more
MOST_REASON = 123  # bytes of a close frame that are left for it
FLOOD = 10.0  # seconds beyond the rate before a conversation is ended
LOOKS = 32  # at conversations in a row; then others have their turn
CALM = 2.0  # seconds without a refusal after which that time counts anew


@dataclass(frozen=True, slots=True)
class Ending:
    """How a conversation is ended by us; `reconnect_after` is the window in which the client should come back, in ms.

    Codes from 4000 on are a service's own (RFC 6455, 7.4.2).
    """

    code: int
    reason: str
    reconnect_after: tuple[int, int] = (500, 5_000)


RESTART = Ending(CloseReason.SERVICE_RESTART, "restart", (100, 2_000))
COMPLETE = Ending(CloseReason.NORMAL_CLOSURE, "complete")
NOT_ASKED = Ending(CloseReason.POLICY_VIOLATION, "nothing is to be sent here")
TOO_SLOW = Ending(4008, "too slow")
SILENT = Ending(4408, "silent")
FLOODING = Ending(4429, "too many messages", (10_000, 30_000))


class Look:
    """When a conversation is looked at next; None once it is over, as what is in the middle of a heap stays there."""

    __slots__ = ("at", "conversation")

    def __init__(self, conversation: "Conversation", at: float) -> None:
        self.conversation: Conversation | None = conversation
        self.at = at

    def __lt__(self, other: "Look") -> bool:
        return self.at < other.at


class Conversations:
    """Those of one feature in this process. `open_conversations` makes it."""

    def __init__(self, lifecycle: Lifecycle, limits: RateLimits, *, spread: float, heartbeat: float) -> None:
        """`spread` and `heartbeat` are seconds: from the first to the last goodbye of a drain, and between pings."""
        self.heartbeat = heartbeat
        self.limits = limits
        self.overflows = 0  # let go as they read too slowly; only rises
        self._lifecycle = lifecycle
        self._spread = spread
        self._open: dict[Conversation, Look] = {}
        self._looks: list[Look] = []  # a heap

    def __len__(self) -> int:
        return len(self._open)

    def add(self, conversation: "Conversation") -> None:
        look = self._open[conversation] = Look(conversation, trio.current_time() + self.heartbeat)
        heapq.heappush(self._looks, look)
        if self._lifecycle.leaving:
            conversation.end(RESTART)  # it was let in a moment before

    def discard(self, conversation: "Conversation") -> None:
        if (look := self._open.pop(conversation, None)) is not None:
            look.conversation = None

    async def run(self) -> None:
        """At the drain, end each at a random moment, so that they do not all come back at once."""
        await self._lifecycle.wait_leaving()
        start = trio.current_time()
        moments = [(start + random.uniform(0, self._spread), one) for one in self._open]  # noqa: S311
        for moment, conversation in sorted(moments, key=lambda pair: pair[0]):
            await trio.sleep_until(moment)
            conversation.end(RESTART)

    async def watch(self) -> None:
        """Ping each, and end who is silent: one task for all, as a task and its scope take 4 KiB of a websocket's 30.

        None that comes meanwhile has to be looked at before the first that is here, or within a heartbeat.
        """
        while True:
            await trio.sleep_until(self._looks[0].at if self._looks else trio.current_time() + self.heartbeat)
            for _ in range(LOOKS):
                now = trio.current_time()
                if not self._looks or self._looks[0].at > now:
                    break
                self._look(now)

    def _look(self, now: float) -> None:
        look = self._looks[0]
        again = None if look.conversation is None else look.conversation.look(now)
        if again is None:
            heapq.heappop(self._looks)
        else:
            look.at = again
            heapq.heapreplace(self._looks, look)


@asynccontextmanager
async def open_conversations(resources: Resources, *, heartbeat: float = HEARTBEAT) -> AsyncIterator[Conversations]:
    """Yield what the websockets of a feature share; each of them is told to go when the process drains."""
    opened = Conversations(
        resources.lifecycle, resources.limits, spread=resources.settings.drain_spread, heartbeat=heartbeat
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(opened.run)
        nursery.start_soon(opened.watch)
        yield opened
        nursery.cancel_scope.cancel()


def closing(source: AsyncIterator[Any]) -> AbstractAsyncContextManager[Any]:
    """Return what ends a generator with whoever reads it; left to the garbage collector, it would end some time."""
    return aclosing(cast(Any, source)) if hasattr(source, "aclose") else nullcontext()


async def say_nothing(_: Ending) -> None:
    """Leave it to the close code."""


class Conversation:
    """One websocket. `end` may be called from anywhere, also from within a fan-out: it never waits."""

    def __init__(self, conversations: Conversations, socket: Websocket | None = None) -> None:
        """Be about a websocket; in a handler that is the current one."""
        self.socket = socket or cast(Websocket, app_ctx.websocket)
        self.address = self.socket.remote_addr or ""
        self._all = conversations
        self._send_nowait = self.socket.outbox.send_nowait  # looked up once: a fan-out calls it for each message
        self._scope: trio.CancelScope | None = None  # the nursery's, while there is one
        self._ending: Ending | None = None
        self._next_ping = trio.current_time() + conversations.heartbeat
        self._last_call = -math.inf
        self._overflowed = False
        self._bucket = conversations.limits.connection()
        self._patience = Patience()

    def send_frame(self, frame: Frame) -> None:
        """Write or queue a frame. After one that found no room nothing is sent: a gap would be silent.

        Nothing is sent before the websocket is accepted: by `await socket.accept()`, or by the first `receive`.
        """
        if self._overflowed:
            return
        try:
            self._send_nowait(frame)
        except TooSlowError:
            self._overflowed = True
            self._all.overflows += 1
            self.end(TOO_SLOW)

    def end(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
            if self._scope is not None:
                self._scope.cancel()

    def look(self, now: float) -> float | None:
        """Ping when it is time to, and end it when it has been silent; return when to look again, if ever.

        None is ended without a last call: a process that stood still has not read what was sent meanwhile.
        """
        if self._ending is not None:
            return None
        heartbeat, heard = self._all.heartbeat, self.socket.last_received
        call_at = heard + LAST_CALL * heartbeat
        if now < call_at:
            if now >= self._next_ping:
                self._ping(now)
            return min(self._next_ping, call_at)
        if self._last_call <= heard:
            self._last_call = now
            self._ping(now)
        silent_at = self._last_call + (SILENCE - LAST_CALL) * heartbeat
        if now < silent_at:
            return silent_at
        self.end(SILENT)
        return None

    def _ping(self, now: float) -> None:
        self._next_ping = now + self._all.heartbeat
        self.socket.ping_nowait()

    def take(self, bucket: TokenBucket | None = None) -> float:
        """Take a token for what was received, of its address's bucket too, or of another bucket alone.

        Returns 0, or the seconds until there is one. Whoever goes on beyond the rate for FLOOD seconds is let go.
        """
        now = trio.current_time()
        wait = bucket.take(now) if bucket else self._bucket.take(now) or self._all.limits.take(self.address)
        if wait and self._patience.refuse(now):
            self.end(FLOODING)
        return wait

    async def run(
        self,
        receive: Callable[[trio.Nursery], Awaitable[None]],
        say_goodbye: Callable[[Ending], Awaitable[None]] = say_nothing,
    ) -> None:
        """Converse until the peer leaves, or `end` is called; then `say_goodbye`, unless it is too slow to hear it.

        `receive` has the conversation's nursery for what must wait beside it.
        """
        self._all.add(self)
        try:
            await self._converse(receive)
            if self._ending is not None:
                if not self._overflowed:
                    await say_goodbye(self._ending)
                await self.socket.close(self._ending.code, self._ending.reason)
        finally:
            self._all.discard(self)

    async def stream(self, messages: AsyncIterator[str]) -> None:
        """Send what comes, no faster than the peer reads, until it leaves; it has nothing to send itself.

        When the messages end, or the database is away, it is told so: 1000, or 1013 (try again later).
        """

        async def receive(nursery: trio.Nursery) -> None:
            nursery.start_soon(self._send_all, messages)
            await self.socket.receive()
            self.end(NOT_ASKED)
            await trio.sleep_forever()

        await self.run(receive)

    async def _send_all(self, messages: AsyncIterator[str]) -> None:
        try:
            async with closing(messages):
                async for message in messages:
                    await self.socket.send(message)
        except* Unavailable as group:  # a nursery's too, of what makes the messages
            told = str(next(leaves(group))).encode()[:MOST_REASON].decode(errors="ignore")
            self.end(Ending(CloseReason.TRY_AGAIN_LATER, told))
        else:
            self.end(COMPLETE)

    async def _converse(self, receive: Callable[[trio.Nursery], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            if self._ending is not None:
                self._scope.cancel()
            if may_be_signed_out():
                nursery.start_soon(self._end_signed_out)
            with suppress(ClientDisconnectedError):  # how most conversations end
                await receive(nursery)
            nursery.cancel_scope.cancel()

    async def _end_signed_out(self) -> None:
        self.end(Ending(SIGNED_OUT, await wait_signed_out()))


class Patience:
    """Measures how long a client has gone on beyond its rate."""

    __slots__ = ("_last", "_since")

    def __init__(self) -> None:
        self._since = self._last = float("-inf")

    def refuse(self, now: float) -> bool:
        """Note a refusal; True when it is time to end this."""
        if now - self._last > CALM:
            self._since = now
        self._last = now
        return now - self._since >= FLOOD
