"""What happens around every request and websocket: an id, the headers of each response, one line in the log.

Plain ASGI, outside the framework, so that it holds for what is refused before the framework as well.
"""

import contextvars
import os
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import structlog

from service.platform.errors import CUT
from service.platform.http.activities import Receive, RequestActivity, Scope, Send, WebsocketActivity, activity
from service.platform.server import client_of
from service.platform.telemetry.lines import direct
from service.platform.telemetry.tracing import Traced, Tracing

log = structlog.get_logger(__name__)

type ASGI = Callable[[Any, Any, Any], Awaitable[None]]  # the frameworks' own types for the three differ

_SANE_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-((?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")  # W3C, 3.2
# structlog's own variables, set without its detour through all that a task's context holds.
_REQUEST_ID, _TRACE_ID = (
    token.var
    for token in contextvars.Context().run(structlog.contextvars.bind_contextvars, request_id="", trace_id="").values()
)

HEALTHZ = "/healthz"  # asked again and again by monitors

# Called at the end of each request with method, route, status and the seconds until its answer, of which clients can't
# make up any. It must be quick and not raise.
type RequestObserver = Callable[[str, str, str, float], None]


def around(
    app: ASGI,
    *,
    observe: RequestObserver = lambda *_: None,
    seldom: Iterable[str] = (),
    tracing: Tracing | None = None,
) -> ASGI:
    """Return `app` with the id, the headers and the log line. `seldom` are paths that monitors ask again and again:

    their line comes when the status is another one than the last time, and at debug level otherwise.
    """
    statuses: dict[str, int | str] = dict.fromkeys(seldom, 200)
    tell = direct(__name__)

    def asgi(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:  # no frame of its own waits
        if scope["type"] == "http":
            return ask(scope, receive, send)
        if scope["type"] == "websocket":
            return converse(scope, receive, send)
        return app(scope, receive, send)

    async def ask(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = RequestActivity(scope, send)
        activity.set(exchange)
        traced = begin(scope, tracing)
        try:
            await app(scope, receive, exchange.send)
        finally:
            activity.set(None)
            seconds = time.perf_counter() - exchange.started
            path, status = scope["path"], exchange.status
            tell("debug" if path in statuses and statuses[path] == status else "info", exchange.event(seconds))
            if path in statuses:
                statuses[path] = status
            observe(*exchange.labels, exchange.seconds_until_answer(seconds))
            if traced is not None:
                traced.end(exchange.labels[0], scope.get("route", ""), scope.get(CUT, status))

    async def converse(scope: Scope, receive: Receive, send: Send) -> None:
        conversation = WebsocketActivity(scope, receive, send, begin(scope, tracing), tell)
        activity.set(conversation)
        try:
            await app(scope, conversation.receive, conversation.send)
        finally:
            activity.set(None)
            conversation.tell()

    return asgi


def begin(scope: Scope, tracing: Tracing | None) -> Traced | None:
    """Give a request its id, and let each line that its task logs say it; it has a task, and a context, of its own."""
    headers = dict(scope["headers"])
    scope["request_id"] = request_id = _request_id(headers.get(b"x-request-id"))
    _REQUEST_ID.set(request_id)
    if (given := headers.get(b"traceparent")) and (found := _TRACEPARENT.fullmatch(given)):
        scope["trace_id"] = found[1].decode()
        _TRACE_ID.set(scope["trace_id"])
    if tracing is None:
        return None
    traced = tracing.begin(scope, headers, client=client_of(scope))
    scope["trace_id"] = traced.trace_id
    _TRACE_ID.set(traced.trace_id)
    return traced


def _request_id(given: bytes | None) -> str:
    """Return the caller's id when it is sane, else a new one of 16 hexadecimal digits."""
    return given.decode() if given and _SANE_ID.fullmatch(given) else os.urandom(8).hex()
