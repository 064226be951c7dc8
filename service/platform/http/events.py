"""Server-sent events: an answer without an end, to a page's `EventSource` or any client that comes back by itself.

    @routes.get("/api/orders/notes/events")
    @signed_in
    @limited(rate=1, concurrency=50)
    @replies(Media("text/event-stream"))
    async def events() -> Response:
        after = parse_after(request.headers.get("Last-Event-ID", "0"))
        return send_events(resources, as_events(feed.follow(after)))

Theory of operation. The source is read by a task of its own, one event ahead, since a wait for it that is given up at
each heartbeat would end a generator, or lose what it was about to give. What was read and not sent when the answer ends
is dropped: the client comes back with the id of the last that it got. The first part goes out before the source is
asked, so that an outage ends an answer that has begun: `EventSource` comes back after that, and never after a 503.
"""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Self, cast

import trio
from quart import Response, current_app, request
from quart.wrappers.response import ResponseBody

from service.platform.declarations import UndeclaredError
from service.platform.feature import Resources
from service.platform.http.conversations import HEARTBEAT, closing
from service.platform.http.limits import limit_of

LIFETIME = 300.0  # seconds, or as little as half; who comes back is asked again whether he may
RETRY = 500, 2_000  # milliseconds after which a client should come back


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `id` is what a client that comes back names as `Last-Event-ID`; `name` is "message" unless given."""

    data: str
    id: str = ""
    name: str = ""

    def encode(self) -> bytes:
        """Return it as it is sent. Raises ValueError for an id or a name that has a line's end or a NUL."""
        if set(self.id + self.name) & set("\r\n\0"):
            raise ValueError(f"an event's id and name must be one line without NUL, not {self.id!r} and {self.name!r}")
        lines = self.data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        fields = [("id", self.id), ("event", self.name)]
        said = [f"{name}: {value}\n" for name, value in fields if value] + [f"data: {line}\n" for line in lines]
        return f"{''.join(said)}\n".encode()


def send_events(
    resources: Resources, events: AsyncIterator[Event], *, heartbeat: float = HEARTBEAT, lifetime: float = LIFETIME
) -> Response:
    """Return an answer that sends what comes, no faster than the client reads, until that leaves or does not read.

    It ends by itself, as a whole, when the events do, after `lifetime` seconds at most, and at the drain, each at a
    moment of its own. A comment is sent where nothing was for `heartbeat` seconds. An error of the source cuts it.
    Raises UndeclaredError at a route that does not declare how many: they would take all of SERVICE_MAX_REQUESTS.
    """
    limit = limit_of(current_app.view_functions[cast(str, request.endpoint)])
    if limit is None or not limit.concurrency:
        raise UndeclaredError(f"{request.endpoint}: sends events, and has to be @limited(concurrency=…)")
    body: EventStream | tuple[()] = ()  # of parts, too: a HEAD tells no length, as the events have none
    if request.method != "HEAD":
        body = EventStream(resources, events, heartbeat=heartbeat, lifetime=lifetime)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would keep it until there is more
    return Response(body, headers=headers, content_type="text/event-stream")


class EventStream(ResponseBody):
    """The body. Its tasks live as long as it is being sent."""

    def __init__(
        self, resources: Resources, events: AsyncIterator[Event], *, heartbeat: float, lifetime: float
    ) -> None:
        self._lifecycle = resources.lifecycle
        self._spread = resources.settings.drain_spread
        self._events = events
        self._heartbeat = heartbeat
        self._lifetime = random.uniform(0.5, 1) * lifetime  # noqa: S311  spreads clients, keeps no secret
        self._first = b"retry: %d\n\n" % random.randint(*RETRY)  # noqa: S311  the same
        self._sender, self._parts = trio.open_memory_channel[bytes](0)
        self._nursery_manager = trio.open_nursery()
        self._waiting = trio.CancelScope()
        self._is_over = False

    async def __aenter__(self) -> Self:
        self._nursery = await self._nursery_manager.__aenter__()
        self._nursery.start_soon(self._read)
        self._nursery.start_soon(self._end_in_time)
        return self

    async def __aexit__(self, *error: Any) -> bool | None:  # type: ignore[override]  # what an outer scope cancels is not ours
        self._nursery.cancel_scope.cancel()
        return await self._nursery_manager.__aexit__(*error)  # noqa: ASYNC102  its tasks are cancelled

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        with trio.CancelScope(deadline=trio.current_time() + self._heartbeat) as self._waiting:
            if not self._is_over:
                return await self._parts.receive()
        if self._is_over:
            raise StopAsyncIteration
        return b":\n\n"

    async def _read(self) -> None:
        async with closing(self._events):
            async for event in self._events:
                await self._sender.send(event.encode())
        self._end()  # and not after an error, of which nobody may take this for the end

    async def _end_in_time(self) -> None:
        with trio.move_on_after(self._lifetime):
            await self._lifecycle.wait_leaving()
            await trio.sleep(random.uniform(0, self._spread))  # noqa: S311  the same
        self._end()

    def _end(self) -> None:
        self._is_over = True
        self._waiting.cancel()
