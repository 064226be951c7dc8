"""One HTTP request between the protocol and the app."""

from time import time
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

import trio
from hypercorn.protocol.events import Event, Request, StreamClosed
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.typing import AppWrapper, ASGISendEvent, ConnectionState, HTTPResponseBodyEvent, HTTPResponseStartEvent

from service.platform.server.exchange import ConnectionTasks, Exchange
from service.platform.server.responses import BODILESS, encode_head

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

    @property
    def owes_answer(self) -> bool:
        """Whether a client waits who has been sent nothing."""
        return not self.closed and self._started is None and self.state is ASGIHTTPState.REQUEST

    async def handle(self, event: Event) -> None:
        if self.closed:
            return
        if isinstance(event, StreamClosed):
            self.closed = True
            self.app_put.close({"type": "http.disconnect"})
            if self.state != ASGIHTTPState.CLOSED:
                self.app_put.scope.cancel()
            return
        if isinstance(event, Request):
            self.begin(event.method, event.raw_path, event.headers, event.http_version, event.state)
        else:
            await super().handle(event)

    def begin(
        self, method: str, target: bytes, headers: list[tuple[bytes, bytes]], version: str, state: ConnectionState
    ) -> None:
        """Start the app for a request: what Hypercorn's own does for one of HTTP/1.x."""
        path, _, query = target.partition(b"?")
        text = path.decode("ascii")
        self.start_time = time()
        self.scope = {
            "type": "http",
            "http_version": version,
            "asgi": {"spec_version": "2.1", "version": "3.0"},
            "method": method,
            "scheme": self.scheme,
            "path": unquote(text) if "%" in text else text,
            "raw_path": path,
            "query_string": query,
            "root_path": self.config.root_path,
            "headers": headers,
            "client": self.client,
            "server": self.server,
            "state": state.copy(),  # type: ignore[typeddict-item]  # a dictionary of its own kind, as Hypercorn has it
            "extensions": {EXTENSION: self},  # type: ignore[dict-item]  # ours, not JSON
        }
        self.app_put = cast(ConnectionTasks, self.task_group).start_app(
            self.app if self.transport.has_entered else cast(AppWrapper, self._enter),
            self.config,
            self.scope,
            self.app_send,
        )

    async def _enter(self, *args: Any) -> None:
        """Be the app for the first request of a connection, if it came after the connection."""
        self.transport.has_entered = True
        await self.transport.config.doorway.pass_through()
        await self.app(*args)

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
            # The date is ours (RFC 9110, 5.3), and no length that a view gave to what has no body is right (8.6).
            dropped = {b"date", b"content-length"} if self._started["status"] in BODILESS else {b"date"}
            told = self._started["headers"]
            self._started["headers"] = [pair for pair in told if pair[0].lower() not in dropped]
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
