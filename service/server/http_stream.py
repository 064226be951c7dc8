"""One HTTP request between the protocol and the app."""

from typing import TYPE_CHECKING

import trio
from hypercorn.protocol.events import Event, Request, StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import ASGISendEvent

from service.server.exchange import Exchange

if TYPE_CHECKING:
    from service.server.connection import Connection  # it makes the protocol that makes us

EXTENSION = "trireme.exchange"


class HttpStream(HTTPStream):
    """Hypercorn's, which cancels the app itself when the client is gone, and tells it so without waiting for it."""

    app_put: Exchange
    transport: "Connection"

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
        await super().app_send(message)
        if message is not None and message["type"] == "http.response.body" and message.get("more_body", False):
            await self.transport.protocol.flush()
            await trio.lowlevel.checkpoint()
