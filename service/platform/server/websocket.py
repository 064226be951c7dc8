"""The `websocket` that handlers see, and how the framework runs a conversation on it."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Protocol, cast

import quart
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGIReceiveEvent, ASGISendCallable
from quart.wrappers.base import ClientDisconnectedError
from quart_trio.asgi import TrioASGIWebsocketConnection
from quart_trio.wrappers import TrioWebsocket
from werkzeug.datastructures import Headers
from wsproto.frame_protocol import CloseReason

from service.platform.server.cookies import OwnCookies
from service.platform.server.frames import Frame
from service.platform.server.query import FewFields
from service.platform.server.websocket_stream import EXTENSION, WebsocketStream


class FrameOutbox(Protocol):
    """Where a room puts a member's frames."""

    def send_nowait(self, frame: Frame) -> None:
        """Write the frame, or queue it behind what waits; raises TooSlowError when the queue is full."""


class Websocket(FewFields, OwnCookies, TrioWebsocket):
    """Quart's, with what a conversation needs to notice a silent peer and to serve many members cheaply."""

    _stream: WebsocketStream
    _receive: Callable[[], Awaitable[ASGIReceiveEvent]]
    _closed = False
    _seen_off_at = 0.0

    def attach(self, stream: WebsocketStream, receive: Callable[[], Awaitable[ASGIReceiveEvent]]) -> None:
        """Converse by a stream; Quart's own buffer, a channel of trio's, is not needed then."""
        self._stream = stream
        self._receive = receive
        del self.buffer

    @property
    def outbox(self) -> FrameOutbox:
        """For rooms: keep this and not the `websocket` proxy, which is the current task's alone."""
        return self._stream

    @property
    def last_received(self) -> float:
        """Trio's time when anything, a pong included, last came from the peer."""
        return self._stream.last_received

    async def ping(self) -> None:
        """Send a ping frame; whether it is answered shows in `last_received`."""
        await self.accept()
        await self._stream.ping()
        await trio.lowlevel.checkpoint()

    def ping_nowait(self) -> None:
        """Send a ping frame once it is accepted, behind what waits; one for which there is no room is not sent."""
        self._stream.ping_nowait()

    async def receive(self) -> str | bytes:
        """Return the next message; raises ClientDisconnectedError when there will be none."""
        await self.accept()
        while True:
            message = await self._receive()
            if message["type"] == "websocket.receive":
                # Not `bytes or text`: an empty binary message is a message.
                data = message["bytes"] if message["bytes"] is not None else message["text"]
                return cast(str | bytes, data)
            if message["type"] == "websocket.disconnect":
                await self._stream.answer_close()
                raise ClientDisconnectedError

    async def send(self, data: str | bytes) -> None:
        """Send a message, and wait while the peer is slow. Always a checkpoint."""
        await super().send(data)
        await trio.lowlevel.checkpoint()

    async def accept(self, headers: dict[str, str] | Headers | None = None, subprotocol: str | None = None) -> None:
        """Complete the handshake; the subprotocol must be one that the client offered, or ValueError."""
        if subprotocol is not None and subprotocol not in self.requested_subprotocols:
            raise ValueError(f"subprotocol {subprotocol!r} is not among the offered {self.requested_subprotocols}")
        await super().accept(headers, subprotocol)

    async def close(self, code: int, reason: str = "") -> None:
        """Close with this code and wait at most a second for the peer's close; before the accept it is a 403."""
        if not self._closed:
            self._closed = True
            if self._seen_off_at:
                self._stream.seen_off_at = self._seen_off_at
            await super().close(code, reason)

    def see_off(self, at: float) -> None:
        """Let the peer's answer to the close wait until a moment of Trio's time: it is one of many that end."""
        self._seen_off_at = at


# Quart's proxy for the current task's websocket, under the type that it has in an Application.
websocket = cast(Websocket, quart.websocket)


class WebsocketConnection(TrioASGIWebsocketConnection):
    """Quart's, without its nursery and its unbounded buffer, and with a close code that tells the truth."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        stream: Any = self.scope["extensions"].get(EXTENSION)
        if stream is None:  # some other server: a test client of the framework's
            await super().__call__(receive, send)
            return
        member = cast(Websocket, self._create_websocket_from_scope(send))
        member.attach(stream, receive)
        response = await self.app.handle_websocket(member)
        if stream.handshake.accepted:
            await trio.lowlevel.cancel_shielded_checkpoint()  # many end together: others come between the parts
            await member.close(_close_code(response))
        elif response is not None:
            await self._refuse(send, response)

    async def _refuse(self, send: ASGISendCallable, response: Any) -> None:
        """Answer the upgrade with a status and a body, as any request."""
        headers = [(key.lower().encode(), value.encode()) for key, value in response.headers.items()]
        await send({"type": "websocket.http.response.start", "status": response.status_code, "headers": headers})
        body = response.get_data(as_text=False)
        if isawaitable(body):  # Werkzeug's responses, which stand for HTTP exceptions, give it at once
            body = await body
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


def _close_code(response: Any) -> CloseReason:
    """Return what a handler's end is to the peer. A response can only be an error's: the handshake had its own."""
    if response is None:
        return CloseReason.NORMAL_CLOSURE
    return CloseReason.INTERNAL_ERROR if response.status_code >= 500 else CloseReason.POLICY_VIOLATION
