"""What a task works for: one request, or one websocket; what goes past is counted here, and told at its end."""

import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextvars import ContextVar
from typing import Any

from service.platform.errors import CUT, REASON, cut
from service.platform.identity import caller_of
from service.platform.server import ALWAYS, WEBSOCKET, CloseReason, client_of
from service.platform.telemetry.tracing import Traced

type Message = MutableMapping[str, Any]
type Scope = MutableMapping[str, Any]
type Receive = Callable[[], Awaitable[Message]]
type Send = Callable[[Message], Awaitable[None]]
type Tell = Callable[[str, dict[str, Any]], None]  # logs a whole event at a level

_ALWAYS_NAMES = frozenset(name for name, _ in ALWAYS)

# What a method may be called in a metric: clients can invent others without end (OpenTelemetry's word for them).
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"})
_OTHER_METHOD, _UNMATCHED = "_OTHER", "unmatched"


class RequestActivity:
    """One request and its response."""

    __slots__ = ("_begun", "_bytes", "_scope", "_send", "started", "status")

    def __init__(self, scope: Scope, send: Send) -> None:
        self.started = time.perf_counter()
        self.status: int | str = "aborted"  # until the response starts
        self._scope = scope
        self._send = send
        self._bytes = 0
        self._begun: float | None = None  # of an answer in parts: when it had the first

    def seconds_until_answer(self, seconds: float) -> float:
        """Return our part of `seconds`: an answer in parts, such as events, lasts as long as its reader likes."""
        return seconds if self._begun is None else self._begun - self.started

    @property
    def labels(self) -> tuple[str, str, str]:
        """Return method, route and status as a metric may have them."""
        method = self._scope["method"]
        return (
            method if method in _METHODS else _OTHER_METHOD,
            self._scope.get("route", _UNMATCHED),
            str(self._scope.get(CUT, self.status)),
        )

    def __str__(self) -> str:
        return " ".join(self.labels[:2])

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = complete_headers(message["headers"], self._scope["request_id"])
        elif message["type"] == "http.response.body":
            self._bytes += len(message.get("body", b""))
            if self._begun is None and message.get("more_body"):
                self._begun = time.perf_counter()
        await self._send(message)

    def event(self, seconds: float) -> dict[str, Any]:
        """Return the line of its end."""
        scope = self._scope
        event = {
            "event": "request",
            "method": scope["method"] if scope["method"] in _METHODS else cut(scope["method"]),
            "route": scope.get("route", ""),
            "status": self.status,
            "ms": int(seconds * 10_000) / 10,  # round() takes longer than the rest of this
            "bytes": self._bytes,
            "client": _client(scope),
            "request_id": scope["request_id"],
        }
        if "trace_id" in scope:
            event["trace_id"] = scope["trace_id"]
        if REASON in scope:
            event["reason"] = scope[REASON]
        _add_subject(event, scope)
        return event


class WebsocketActivity:
    """One websocket, from the upgrade to the end of its handler."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, traced: Traced | None, tell: Tell) -> None:
        """`tell` logs a whole event; thousands may open or end at once, and a line costs most of it otherwise."""
        self.started = time.perf_counter()
        self._scope = scope
        self._receive = receive
        self._send = send
        self._received = 0
        self._sent = 0
        self._code: int | None = None
        self._reason = ""
        self._status = 0
        self._traced = traced
        self._tell = tell

    def __str__(self) -> str:
        return f"websocket {self._scope.get('route', _UNMATCHED)}"

    async def receive(self) -> Message:
        if self._traced is not None:
            self._traced.end_message()
        message = await self._receive()
        if message["type"] == "websocket.receive":
            self._received += 1
            if self._traced is not None:
                self._traced.next_message(self._scope.get("route", ""))
        elif message["type"] == "websocket.disconnect" and self._code is None:
            self._code = message.get("code")
        return message

    async def send(self, message: Message) -> None:
        match message["type"]:
            case "websocket.accept":
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", self._scope["request_id"].encode()),
                ]
            case "websocket.send":
                self._sent += 1
            case "websocket.close":
                self._status = self._status or 403  # before the accept
                self._code, self._reason = (
                    message.get("code", int(CloseReason.NORMAL_CLOSURE)),
                    message.get("reason") or "",
                )
            case "websocket.http.response.start":
                self._status = message["status"]
                message["headers"] = complete_headers(message["headers"], self._scope["request_id"])
        await self._send(message)
        if message["type"] == "websocket.accept":  # which may fail, by the headers of the handler
            self._status = 101
            self._tell("info", self._event("websocket opened"))
            self._end_upgrade()

    def _end_upgrade(self) -> None:
        if self._traced is not None:
            self._traced.end("GET", self._scope.get("route", ""), self._answer)

    def tell(self) -> None:
        opened = self._status == 101
        if not opened:
            self._end_upgrade()
        elif self._traced is not None:
            self._traced.end_message()
        event = self._event("websocket closed" if opened else "websocket refused")
        event["ms"] = _milliseconds_since(self.started)
        _add_subject(event, self._scope)
        self._tell("info", event | (self._ending() if opened else self._refusal()))

    def _event(self, what: str) -> dict[str, Any]:
        scope = self._scope
        event = {"event": what, "route": scope.get("route", ""), "client": _client(scope)}
        return event | {name: scope[name] for name in ("request_id", "trace_id") if name in scope}

    def _refusal(self) -> dict[str, object]:
        return {"status": self._answer} | ({"reason": self._scope[REASON]} if REASON in self._scope else {})

    @property
    def _answer(self) -> int | str:
        """Return the status of the upgrade. A handler that says nothing is an error, unless the client has gone."""
        stream = self._scope.get("extensions", {}).get(WEBSOCKET)
        return self._status or ("aborted" if stream is None or stream.closed else 500)

    def _ending(self) -> dict[str, object]:
        """Return how it went, as the server saw it: the code on the wire, and the frames that went past ASGI."""
        stream = self._scope.get("extensions", {}).get(WEBSOCKET)
        code, reason, sent = self._code, self._reason, self._sent
        if stream is not None:
            code, reason, sent = stream.close_code or code, stream.close_reason, stream.frames_sent
        reason = reason or self._scope.get(REASON, "")  # of an error, of which the peer is told the code alone
        return {"received": self._received, "sent": sent, "code": code, "reason": reason}


# What the task, and those that it starts, work for; also read from outside, to say who waits for what.
activity: ContextVar[RequestActivity | WebsocketActivity | None] = ContextVar("activity", default=None)


def complete_headers(headers: Iterable[tuple[bytes, bytes]], request_id: str) -> list[tuple[bytes, bytes]]:
    """Add what every response carries and this one does not say itself."""
    given = [(name.lower(), value) for name, value in headers]
    own = _ALWAYS_NAMES.intersection([name for name, _ in given])
    always = [pair for pair in ALWAYS if pair[0] not in own] if own else ALWAYS
    return [*given, (b"x-request-id", request_id.encode()), *always]


def _add_subject(event: dict[str, Any], scope: Scope) -> None:
    """Add whoever has signed in as the log may name him: a hash."""
    if (caller := caller_of(scope)) is not None and caller.signed_in:
        event["subject"] = caller.label


def _client(scope: Scope) -> str:
    return client_of(scope) or "unknown"


def _milliseconds_since(start: float) -> float:
    return round((time.perf_counter() - start) * 1000, 1)
