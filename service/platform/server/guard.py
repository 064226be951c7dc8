"""What a request meets ahead of the framework: the admission gate, and who gets in. Probes are answered before.

A refusal made inside the framework proved too dear on a busy core; here it costs a dictionary and a write.
"""

import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, cast

import trio
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope, WebsocketScope

from service.platform.errors import RateLimited, ServiceError, Unavailable, UnsupportedMedia, note_reason, reply_to
from service.platform.lifecycle import Lifecycle
from service.platform.server.address import client_of, subscriber
from service.platform.server.entry import (
    SAFE_METHODS,
    UNASKED,
    UNASKED_TYPES,
    Headers,
    is_elsewhere,
    media_type,
    refusal,
)
from service.platform.server.http_stream import EXTENSION as HTTP
from service.platform.server.rates import RateLimits
from service.platform.server.statistics import FULL_HOUSE, ServerStatistics
from service.platform.server.targets import undecoded
from service.platform.server.websocket_stream import EXTENSION as WEBSOCKET
from service.platform.settings import PlatformSettings

# How long a refused client should wait: requests last less than that, and another replica may have room at once.
RETRY_AFTER = 1

type Takes = Callable[[HTTPScope], Collection[str] | None]


def guard(
    app: ASGIFramework,
    *,
    settings: PlatformSettings,
    lifecycle: Lifecycle,
    statistics: ServerStatistics,
    limits: RateLimits,
    any_host: Collection[str] = (),
    takes: Takes = lambda _: (),
) -> ASGIFramework:
    """Wrap `app`; refusals are problem+json. The paths `any_host` are served whatever host name they are asked by,

    `takes` says which bodies a request's route takes beside JSON: a form's only from who is no browser. None stands for
    a method without a route, which is what its answer is to tell.
    """
    return Guard(
        app,
        settings=settings,
        lifecycle=lifecycle,
        statistics=statistics,
        limits=limits,
        any_host=any_host,
        takes=takes,
    )


class Guard:
    """What `guard` returns: an ASGI application."""

    def __init__(
        self,
        app: ASGIFramework,
        *,
        settings: PlatformSettings,
        lifecycle: Lifecycle,
        statistics: ServerStatistics,
        limits: RateLimits,
        any_host: Collection[str],
        takes: Takes,
    ) -> None:
        self._app = app
        self._settings = settings
        self._lifecycle = lifecycle
        self._statistics = statistics
        self._limits = limits
        self._any_host = any_host
        self._takes = takes
        self._requests = 0
        self._websockets = 0
        self._websockets_of: Counter[str] = Counter()

    def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> Awaitable[None]:
        if scope["type"] == "http":
            return self._pass_request(scope, receive, send)
        if scope["type"] == "websocket":
            return self._pass_websocket(scope, receive, send)
        return self._app(scope, receive, send)

    async def _pass_request(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if (error := self._refuse_request(scope)) is not None:
            await _refuse(scope, send, error)
        else:
            self._requests += 1
            self._statistics.requests_in_flight += 1
            try:
                await self._app(scope, receive, send)
            except (trio.Cancelled, BaseExceptionGroup):  # alone, or with what a nursery of the view's has ended by
                await self._tell_left(scope, send)  # noqa: ASYNC102  the outbox bounds it
                raise
            finally:
                self._requests -= 1
                self._statistics.requests_in_flight -= 1

    async def _pass_websocket(
        self, scope: WebsocketScope, receive: ASGIReceiveCallable, send: ASGISendCallable
    ) -> None:
        if (error := self._refuse_websocket(scope)) is not None:
            await _refuse(scope, send, error)
            return
        with self._seat(subscriber(client_of(scope))):
            try:
                await self._app(scope, receive, send)
            except (trio.Cancelled, BaseExceptionGroup):  # as for a request
                await self._tell_left(scope, send)  # noqa: ASYNC102  the outbox bounds it
                raise

    def _refuse_request(self, scope: HTTPScope) -> ServiceError | None:
        if self._requests >= self._settings.max_requests:
            return self._turn_away("busy", "too many requests are in flight")
        method, any_host = scope["method"], scope["path"] in self._any_host
        headers, path, query = Headers.of(scope["headers"]), scope["raw_path"], scope["query_string"]
        if (b"%" in path or b"%" in query) and (wrong := undecoded(path, query)) is not None:
            return self._count(wrong)
        if (error := refusal(method, headers, self._settings, any_host=any_host)) is not None:
            if isinstance(error, UnsupportedMedia):  # now the route is looked for, which may take more
                takes = self._takes(scope)
                if takes is None:
                    error = None
                else:
                    error = refusal(method, headers, self._settings, any_host=any_host, takes=takes)
            if error is not None:
                return self._count(error)
            if media_type(headers.content_type) in UNASKED_TYPES:
                cast(dict[str, Any], scope)[UNASKED] = True
        if self._settings.allowed_origins:
            self._note_elsewhere(scope, headers)
        return None if method in SAFE_METHODS else self._refuse_rate(scope)

    def _refuse_websocket(self, scope: WebsocketScope) -> ServiceError | None:
        if (wrong := undecoded(scope["raw_path"], scope["query_string"])) is not None:
            return self._count(wrong)
        headers = Headers.of(scope["headers"])
        if (error := refusal("GET", headers, self._settings, upgrade=True)) is not None:
            return self._count(error)
        if self._settings.allowed_origins:
            self._note_elsewhere(scope, headers)
        if self._lifecycle.leaving:
            return self._turn_away("leaving", "this replica is going away")
        if self._websockets >= self._settings.max_websockets:
            return self._turn_away(FULL_HOUSE, "too many websockets are open")
        most = self._settings.max_websockets_per_address
        if most and self._websockets_of[subscriber(client_of(scope))] >= most:
            return self._turn_away("full house of address", f"an address has at most {most} websockets")
        return self._refuse_rate(scope)

    def _refuse_rate(self, scope: HTTPScope | WebsocketScope) -> ServiceError | None:
        if wait := self._limits.take(client_of(scope)):
            return self._count(RateLimited("too many requests from this address", retry_after=wait))
        return None

    def _note_elsewhere(self, scope: HTTPScope | WebsocketScope, headers: Headers) -> None:
        if is_elsewhere(headers.origin, headers.host):
            cast(dict[str, Any], scope)[UNASKED] = True

    async def _tell_left(self, scope: HTTPScope | WebsocketScope, send: ASGISendCallable) -> None:
        """Answer what the end of the server cancels, if its client is there and has no answer."""
        stream: Any = scope["extensions"].get(HTTP if scope["type"] == "http" else WEBSOCKET)
        if stream is not None and stream.owes_answer and trio.current_effective_deadline() == -math.inf:
            told = "this replica has gone before the request was done"
            await _refuse(scope, send, self._turn_away("leaving", told))

    def _turn_away(self, reason: str, message: str) -> ServiceError:
        return self._count(Unavailable(message, retry_after=RETRY_AFTER, reason=reason))

    def _count(self, error: ServiceError) -> ServiceError:
        self._statistics.refused[error.reason] += 1
        return error

    @contextmanager
    def _seat(self, address: str) -> Iterator[None]:
        self._websockets += 1
        self._websockets_of[address] += 1
        try:
            yield
        finally:
            self._websockets -= 1
            self._websockets_of[address] -= 1
            if not self._websockets_of[address]:
                del self._websockets_of[address]


async def _refuse(scope: HTTPScope | WebsocketScope, send: ASGISendCallable, error: ServiceError) -> None:
    note_reason(scope, error)
    reply = reply_to(error, instance=scope["path"], request_id=str(scope.get("request_id", "")))
    headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
    if error.status == 400:
        headers.append((b"connection", b"close"))  # who frames a request two ways may mean another one to follow
    await _reply(scope, send, reply.status, reply.body, headers)


async def _reply(
    scope: HTTPScope | WebsocketScope,
    send: ASGISendCallable,
    status: int,
    body: bytes,
    headers: list[tuple[bytes, bytes]],
) -> None:
    prefix = "" if scope["type"] == "http" else "websocket."
    headers.append((b"content-length", str(len(body)).encode()))
    start: Any = {"type": f"{prefix}http.response.start", "status": status, "headers": headers}
    await send(start)
    end: Any = {"type": f"{prefix}http.response.body", "body": body, "more_body": False}
    await send(end)
