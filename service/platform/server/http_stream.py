"""One HTTP request between the protocol and the app."""

from typing import TYPE_CHECKING, Any

import trio
from hypercorn.protocol.events import Event, Request, StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import ASGISendEvent, HTTPResponseBodyEvent, HTTPResponseStartEvent

from service.platform.server.exchange import Exchange
from service.platform.server.responses import encode_head

if TYPE_CHECKING:
    from service.platform.server.connection import ServerConnection  # it makes the protocol that makes us

EXTENSION = "service.exchange"


class HttpStream(HTTPStream):
    """Hypercorn's, which cancels the app itself when the client is gone, and tells it so without waiting for it."""

    app_put: Exchange
    _started: HTTPResponseStartEvent | None = None  # held until its first body: mostly that is the whole response

    def __init__(self, *args: Any, transport: "ServerConnection") -> None:
        super().__init__(*args)
        self.transport = transport

    async def handle(self, event: Event) -> None:
        if self.closed:
            return
        if isinstance(event, StreamClosed):
            self.closed = True
            self.app_put.close({"type": "http.disconnect"})
            if self.state != ASGIHTTPState.CLOSED:
                self.app_put.scope.cancel()
            return
        await super().handle(event)
        if isinstance(event, Request):
            self.scope["extensions"][EXTENSION] = {}

    async def app_send(self, message: ASGISendEvent | None) -> None:
        if message is not None and self.closed:
            await trio.lowlevel.checkpoint()  # nobody listens, but an app that goes on and on must not stop the others
            return
        if message is None:
            await super().app_send(message)
        elif message["type"] == "http.response.start" and self._started is None:
            self._started = message
        elif message["type"] == "http.response.body":
            await self._send_body(message)
        else:
            await super().app_send(message)

    async def _send_body(self, message: HTTPResponseBodyEvent) -> None:
        if self._started is not None and self.state is ASGIHTTPState.REQUEST:
            body = message.get("body", b"")
            head = None if message.get("more_body", False) else self._plain_head(self._started, body)
            if head is not None:
                self.state = ASGIHTTPState.CLOSED
                await self.transport.protocol.answer(head, body)
                return
            await super().app_send(self._started)
        await super().app_send(message)
        if message.get("more_body", False):
            await self.transport.protocol.flush()
            await trio.lowlevel.checkpoint()

    def _plain_head(self, start: HTTPResponseStartEvent, body: bytes) -> bytes | None:
        """Return the head as it is written, if the response is one of the plain kind; h11 does all the others."""
        if self.scope["method"] in {"HEAD", "CONNECT"} or not self.transport.protocol.is_plain(
            self.scope["http_version"].encode(), self.scope["headers"]
        ):
            return None
        return encode_head(start["status"], [*start["headers"], *self.config.response_headers("h11")], body)
