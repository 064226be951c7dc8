"""What browsers are told about pages of other origins (CORS, in the Fetch standard).

Those of SERVICE_ALLOWED_ORIGINS may send what they like, and read what comes back, but for the probes; without cookies,
so a page shows who is asking by a token. Who is refused is not decided here: `server/entry.py` does that, by the same
setting. A feature, or a hook, that says `Access-Control-Allow-Origin` itself is left alone.
"""

from collections.abc import Awaitable, Collection

from service.platform.errors import REASON
from service.platform.http.activities import Message, Receive, Scope, Send
from service.platform.http.requests import ASGI

_ALLOWED = b"access-control-allow-origin"
_ASKING = b"access-control-request-method"
_DEPENDS = (b"vary", b"Origin")
# A star is for requests without cookies, and names all but Authorization.
_READING = (b"access-control-expose-headers", b"*")
_SENDING = (
    (b"access-control-allow-methods", b"*"),
    (b"access-control-allow-headers", b"Authorization, *"),
    (b"access-control-max-age", b"600"),  # seconds for which a page asks no more, and an origin taken off the list may
)


def share(app: ASGI, allowed: Collection[str]) -> ASGI:
    """Return `app` with these headers; itself where no origin is listed."""
    if not allowed:
        return app

    def asgi(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != "http":  # a websocket's upgrade is no page's to read
            return app(scope, receive, send)
        headers = dict(scope["headers"])
        origin = headers.get(b"origin", b"")
        listed = origin if origin.decode("latin1").lower() in allowed else b""
        preflight = bool(listed) and scope["method"] == "OPTIONS" and _ASKING in headers
        return app(scope, receive, _Answer(scope, send, listed, preflight=preflight).send)

    return asgi


class _Answer:
    """One answer on its way out. `origin` is empty for who may not read it."""

    def __init__(self, scope: Scope, send: Send, origin: bytes, *, preflight: bool) -> None:
        self._scope = scope
        self._send = send
        self._origin = origin
        self._preflight = preflight

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._tell(message)
        elif self._preflight and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    def _tell(self, start: Message) -> None:
        headers = [(name.lower(), value) for name, value in start["headers"]]
        if any(name == _ALLOWED for name, _ in headers):
            self._preflight = False
        elif self._preflight:  # whatever became of it: the request itself is told, in words that the page may read
            start["status"] = 204
            self._scope.pop(REASON, None)  # of the log: nobody was refused
            headers = [pair for pair in headers if pair[0] == b"connection"]
            headers += [(_ALLOWED, self._origin), *_SENDING]
        elif self._origin:
            headers += [(_ALLOWED, self._origin), _READING]
        start["headers"] = [*headers, _DEPENDS]
