"""A request's body, taken from the client as the handler takes it, and never kept beyond the limit."""

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from functools import cached_property
from typing import Any

import trio
from hypercorn.typing import ASGIReceiveEvent
from quart.wrappers.base import ClientDisconnectedError
from quart_trio.datastructures import TrioQueue
from quart_trio.wrappers.request import EventWrapper, TrioBody, TrioRequest
from werkzeug.exceptions import RequestEntityTooLarge, RequestTimeout

from service.platform.server.cookies import OwnCookies
from service.platform.server.query import FewFields
from service.platform.server.routing import blueprints_of


class Body(TrioBody):
    """Quart's body, pulled: what the handler does not read stays with the client (README.md, B6 and C1)."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        # Not the base class's: it opens a channel, for each request, that a body which is pulled does not use.
        self._data = None
        self._max_content_length = max_content_length
        self._must_raise = None
        if max_content_length is not None and (expected_content_length or 0) > max_content_length:
            self._must_raise = RequestEntityTooLarge(f"a body has at most {max_content_length} bytes")

    @cached_property
    def _queue(self) -> TrioQueue[bytes]:  # type: ignore[override]  # for what pushes a body: a test client
        return TrioQueue()

    @cached_property
    def _complete(self) -> EventWrapper:  # type: ignore[override]
        return EventWrapper()

    _receive: Callable[[], Awaitable[ASGIReceiveEvent]] | None = None
    _patience = math.inf
    _size = 0
    _parts: bytearray | None = None  # of a reading of the whole, for others that read it too, or when it is cancelled
    _asked: trio.Event | None = None  # set once the task that waits for the client has its answer; others wait for that
    given_up_at = -math.inf  # Trio's time at which a wait for the client was cancelled

    def bound(self, most: int, expected: int | None) -> None:
        """Take no more than `most` bytes. Raises RequestEntityTooLarge when the client says that it sends more."""
        self._max_content_length = most if self._max_content_length is None else min(most, self._max_content_length)
        if (expected or 0) > most:
            raise RequestEntityTooLarge(f"a body has at most {most} bytes here")

    def pull_from(self, receive: Callable[[], Awaitable[ASGIReceiveEvent]], *, patience: float) -> None:
        """Read from `receive`, and wait `patience` seconds for the client in all; then RequestTimeout."""
        self._receive = receive
        self._patience = patience

    def __await__(self) -> Generator[Any, None, Any]:
        if self._receive is None:
            return super().__await__()
        return self._read_all().__await__()

    def __aiter__(self) -> AsyncIterator[bytes]:  # type: ignore[override]  # itself, in Quart
        """Return the parts: of a body that was read whole, or is being read so, as for a signature, that as one.

        A form is read so.
        """
        return self if self._data is None and self._parts is None else _AsOne(self)

    async def __anext__(self) -> bytes:
        if self._receive is None:
            return await super().__anext__()
        while not self._complete.is_set():
            if data := await self._pull():
                return data
        raise StopAsyncIteration

    async def _read_all(self) -> bytes:
        if self._data is None:
            parts = self._parts = bytearray() if self._parts is None else self._parts
            while not self._complete.is_set():
                parts += await self._pull()
            self._data, self._parts = bytes(parts), None
        return self._data

    async def _pull(self) -> bytes:
        while self._asked is not None:
            await self._asked.wait()
        if self._must_raise is not None:
            raise self._must_raise
        if self._complete.is_set():  # another task has taken the last of it
            return b""
        self._asked = asked = trio.Event()
        try:
            message = await self._wait_for_client()
        finally:
            self._asked = None
            asked.set()
        if message["type"] != "http.request":
            raise ClientDisconnectedError
        data = message["body"]
        self._size += len(data)
        if self._max_content_length is not None and self._size > self._max_content_length:
            self._must_raise = RequestEntityTooLarge(f"a body has at most {self._max_content_length} bytes")
            raise self._must_raise
        if not message["more_body"]:
            self._complete.set()
        return data

    async def _wait_for_client(self) -> ASGIReceiveEvent:
        assert self._receive is not None  # noqa: S101  # who calls this has looked
        started = trio.current_time()
        with trio.move_on_after(self._patience) as waiting:
            try:
                message = await self._receive()
            except trio.Cancelled:
                self.given_up_at = trio.current_time()
                raise
        if waiting.cancelled_caught:
            self._must_raise = late()
            raise self._must_raise
        # Only the waiting counts, so that a handler that takes its time between two reads costs the client nothing.
        # What came at the last moment may be taken behind it, as others have their turns.
        self._patience = max(0.0, self._patience - (trio.current_time() - started))
        return message


class _AsOne(AsyncIterator[bytes]):
    """The whole, in one part; no generator, as who stops at what is wrong with it leaves that to the collector."""

    def __init__(self, body: Body) -> None:
        self._left = [body]

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        whole: bytes = await self._left[0]
        self._left.clear()  # and not before: who gave up waiting may come again
        return whole


def late() -> RequestTimeout:
    """Return what a client is told whose body was waited for in vain."""
    return RequestTimeout("the body did not come in time")


class Request(FewFields, OwnCookies, TrioRequest):
    body_class = Body
    body: Body

    def bound_body(self, most: int) -> None:
        """Take a body of so many bytes at most. Raises RequestEntityTooLarge when it says that it is larger."""
        self.body.bound(most, self.content_length)

    def refuse_late(self, deadline: float) -> None:
        """Raise RequestTimeout if the body is what was waited for when the time of the request was over."""
        if self.body.given_up_at >= deadline:
            raise late()

    @property
    def blueprints(self) -> list[str]:
        return list(blueprints_of(self.url_rule.endpoint)) if self.url_rule else []
