"""What happens around every request and websocket: an id, the headers of each response, one line in the log.

Plain ASGI, outside the framework, so that it holds for what is refused before the framework as well.
"""

import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextvars import ContextVar
from typing import Any

import structlog

from service.server import WEBSOCKET

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


HEALTHZ = "/healthz"  # asked again and again by monitors

# What a method may be called in a metric: clients can invent others without end (OpenTelemetry's word for them).
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
_OTHER_METHOD, _UNMATCHED = "_OTHER", "unmatched"

# Called at the end of each request with method, route, status and seconds, of which clients can't make up any. It must
# be quick and not raise.
type RequestObserver = Callable[[str, str, str, float], None]


def around(app: ASGI, *, observe: RequestObserver = lambda *_: None, seldom: Iterable[str] = ()) -> ASGI:
    """Return `app` with the id, the headers and the log line. `seldom` are paths that monitors ask again and again:

    their line comes when the status is another one than the last time, and at debug level otherwise.
    """
    statuses: dict[str, int | str] = dict.fromkeys(seldom, 200)

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        scope["request_id"] = request_id = _request_id(headers)
        with structlog.contextvars.bound_contextvars(request_id=request_id, **_trace(headers)):
            if scope["type"] == "http":
                await _exchange(scope, receive, send)
            else:
                conversation = Conversation(scope, receive, send)
                token = activity.set(conversation)
                try:
                    await app(scope, conversation.receive, conversation.send)
                finally:
                    activity.reset(token)
                    conversation.tell()

    async def _exchange(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, send)
        token = activity.set(exchange)
        try:
            await app(scope, receive, exchange.send)
        finally:
            activity.reset(token)
            known = scope["path"] in statuses
            exchange.tell(log.debug if known and statuses[scope["path"]] == exchange.status else log.info)
            if known:
                statuses[scope["path"]] = exchange.status
            observe(*exchange.labels, time.perf_counter() - exchange.started)

    return asgi


class Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.started = time.perf_counter()
        self.status: int | str = "aborted"  # until the response starts
        self._scope = scope
        self._send = send
        self._bytes = 0

    @property
    def labels(self) -> tuple[str, str, str]:
        """Return method, route and status as a metric may have them."""
        method = self._scope["method"]
        return (
            method if method in _METHODS else _OTHER_METHOD,
            self._scope.get("route", _UNMATCHED),
            str(self.status),
        )

    def __str__(self) -> str:
        return " ".join(self.labels[:2])

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = complete_headers(message["headers"], self._scope["request_id"])
        elif message["type"] == "http.response.body":
            self._bytes += len(message.get("body", b""))
        await self._send(message)

    def tell(self, tell: Callable[..., object]) -> None:
        tell(
            "request",
            method=self._scope["method"],
            route=self._scope.get("route", ""),
            status=self.status,
            ms=_milliseconds_since(self.started),
            bytes=self._bytes,
            client=_client(self._scope),
        )


class Conversation:
    """One websocket, from the upgrade to the end of its handler."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started = time.perf_counter()
        self._scope = scope
        self._receive = receive
        self._send = send
        self._received = 0
        self._sent = 0
        self._code: int | None = None
        self._reason = ""
        self._status = 0

    def __str__(self) -> str:
        return f"websocket {self._scope.get('route', _UNMATCHED)}"

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self._received += 1
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
            case "websocket.send":
                self._sent += 1
            case "websocket.close":
                self._code, self._reason = message.get("code", 1000), message.get("reason") or ""
            case "websocket.http.response.start":
                self._status = message["status"]
                message["headers"] = complete_headers(message["headers"], self._scope["request_id"])
        await self._send(message)

    def tell(self) -> None:
        opened = self._status == 101
        log.info(
            "websocket closed" if opened else "websocket refused",
            route=self._scope.get("route", ""),
            ms=_milliseconds_since(self.started),
            client=_client(self._scope),
            **(self._ending() if opened else {"status": self._status or 403}),
        )

    def _ending(self) -> dict[str, object]:
        """Return how it went, as the server saw it: the code on the wire, and the frames that went past ASGI."""
        stream = self._scope.get("extensions", {}).get(WEBSOCKET)
        code, reason, sent = self._code, self._reason, self._sent
        if stream is not None:
            code, reason, sent = stream.close_code or code, stream.close_reason, stream.frames_sent
        return {"received": self._received, "sent": sent, "code": code, "reason": reason}


# What the task, and those that it starts, work for; also read from outside, to say who waits for what.
activity: ContextVar[Exchange | Conversation] = ContextVar("activity")


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
