"""What happens around every request and websocket: an id, the headers of each response, one line in the log.

Plain ASGI, outside the framework, so that it holds for what is refused before the framework as well.
"""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import structlog

log = structlog.get_logger(__name__)

type Message = MutableMapping[str, Any]
type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type ASGI = Callable[[Any, Any, Any], Awaitable[None]]  # the frameworks' own types for the three differ

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")  # W3C Trace Context, 3.2
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)


def around(app: ASGI, *, quiet: Iterable[str] = ()) -> ASGI:
    """Return `app` with the id, the headers and the log line; the paths in `quiet` are logged at debug only."""
    unlogged = frozenset(quiet)

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        scope["request_id"] = request_id = _request_id(headers)
        with structlog.contextvars.bound_contextvars(request_id=request_id, **_trace(headers)):
            if scope["type"] == "http":
                exchange = _Exchange(scope, send, log.debug if scope["path"] in unlogged else log.info)
                try:
                    await app(scope, receive, exchange.send)
                finally:
                    exchange.tell()
            else:
                conversation = _Conversation(scope, receive, send)
                try:
                    await app(scope, conversation.receive, conversation.send)
                finally:
                    conversation.tell()

    return asgi


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, send: Send, tell: Callable[..., object]) -> None:
        self._scope = scope
        self._send = send
        self._tell = tell
        self._start = time.perf_counter()
        self._status = 0
        self._bytes = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = complete_headers(message["headers"], self._scope["request_id"])
        elif message["type"] == "http.response.body":
            self._bytes += len(message.get("body", b""))
        await self._send(message)

    def tell(self) -> None:
        self._tell(
            "request",
            method=self._scope["method"],
            route=self._scope.get("route", ""),
            status=self._status or "aborted",
            ms=_milliseconds_since(self._start),
            bytes=self._bytes,
            client=_client(self._scope),
        )


class _Conversation:
    """One websocket, from the upgrade to the end of its handler."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._start = time.perf_counter()
        self._messages = 0
        self._code: int | None = None
        self._status = 0

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self._messages += 1
        elif message["type"] == "websocket.disconnect" and self._code is None:
            self._code = message.get("code")
        return message

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                self._status = 101
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", self._scope["request_id"].encode()),
                ]
                log.info("websocket opened", route=self._scope.get("route", ""), client=_client(self._scope))
            case "websocket.close":
                self._code = message.get("code", 1000)
            case "websocket.http.response.start":
                self._status = message["status"]
                message["headers"] = complete_headers(message["headers"], self._scope["request_id"])
        await self._send(message)

    def tell(self) -> None:
        opened = self._status == 101
        log.info(
            "websocket closed" if opened else "websocket refused",
            route=self._scope.get("route", ""),
            ms=_milliseconds_since(self._start),
            client=_client(self._scope),
            **({"messages": self._messages, "code": self._code} if opened else {"status": self._status or 403}),
        )


def complete_headers(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """Add what every response carries and this one does not say itself."""
    given = [(name.lower(), value) for name, value in headers]
    names = {name for name, _ in given}
    return [*given, (b"x-request-id", request_id.encode()), *(pair for pair in _ALWAYS if pair[0] not in names)]


def _request_id(headers: dict[bytes, bytes]) -> str:
    """Return the caller's id when it is sane, else a new one of 16 hexadecimal digits."""
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _SANE_ID.fullmatch(given) else secrets.token_hex(8)


def _trace(headers: dict[bytes, bytes]) -> dict[str, str]:
    found = _TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    return {"trace_id": found[1].decode()} if found else {}


def _client(scope: Scope) -> str:
    return (scope.get("client") or ("unknown",))[0]


def _milliseconds_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 1)
