"""Who gets in, decided from the headers alone: hosts, origins, content types, and what no honest client sends.

Pure: a request's method and headers in, an error or None out.
"""

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from service.platform.errors import Forbidden, Invalid, Misdirected, ServiceError, UnsupportedMedia, cut
from service.platform.server.address import host_of
from service.platform.settings import DEFAULT_PORTS, PlatformSettings, host_name, variable

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
JSON = "application/json"
# Of a page elsewhere, browsers send these without asking us first (the Fetch standard, CORS-safelisted request-header).
UNASKED_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "text/plain"})
UNASKED = "unasked"  # in the scope of a request whose body is of these, or of a page elsewhere: its cookies say nothing
# Given twice, one reader takes the first and another the last. Of a Host, h11 refuses a second.
_ONCE = (b"content-type", b"origin")


class Headers(NamedTuple):
    """The few headers that decide; absent ones are empty."""

    host: str = ""
    origin: str | None = None
    content_type: str = ""
    has_length: bool = False
    has_body: bool = False
    has_encoding: bool = False
    twice: str = ""  # the name of one that must not be

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> Self:
        given = list(headers)
        found = dict(given)
        origin, length = found.get(b"origin"), found.get(b"content-length")
        has_encoding = b"transfer-encoding" in found
        return cls(
            host=found.get(b"host", b"").decode("latin1"),
            origin=None if origin is None else origin.decode("latin1"),
            content_type=found.get(b"content-type", b"").decode("latin1"),
            has_length=length is not None,
            has_body=has_encoding or length not in {None, b"0"},
            has_encoding=has_encoding,
            twice="" if len(found) == len(given) else _given_twice([name for name, _ in given]),
        )


def _given_twice(names: list[bytes]) -> str:
    return next((name.decode().title() for name in _ONCE if names.count(name) > 1), "")


def refusal(
    method: str,
    headers: Headers,
    settings: PlatformSettings,
    *,
    upgrade: bool = False,
    any_host: bool = False,
    takes: Collection[str] = (),
) -> ServiceError | None:
    """Return why a request is not let in, or None.

    `upgrade` is a websocket's, `any_host` is one by any name; `takes` are the media types that a body may have beside
    JSON's, of which a page's may have no form's.
    """
    if headers.has_length and headers.has_encoding:
        return Invalid("both Content-Length and Transfer-Encoding are given")
    if headers.twice:
        return Invalid(f"{headers.twice} is given twice")
    host = host_of(headers.host)
    if headers.host and not host:
        return Invalid(f"the Host {cut(headers.host)!r} is not a host name, or an address, with a port at most")
    name = _as_allowed(host) if host else ""
    if settings.allowed_hosts and not any_host and name not in settings.allowed_hosts:
        return Misdirected(f"the Host {cut(name)!r} is not served here: {variable('allowed_hosts')} does not hold it")
    changes = upgrade or method not in SAFE_METHODS
    if changes and not is_allowed_origin(headers.origin, headers.host, settings.allowed_origins):
        return Forbidden(f"pages of the origin {cut(headers.origin or '')!r} are not allowed to do this")
    if changes and headers.has_body and not is_json(given := headers.content_type):
        allowed = (one for one in takes if headers.origin is None or one not in UNASKED_TYPES)
        types = dict.fromkeys((JSON, *allowed))
        if media_type(given) not in types:
            *most, last = types
            wanted = f"{', '.join(most)} or {last}" if most else last
            return UnsupportedMedia(f"a body is {wanted}; this one is {cut(given)!r}")
    return None


@lru_cache(maxsize=256)
def _as_allowed(name: str) -> str:
    """Return a Host's name as SERVICE_ALLOWED_HOSTS is read, so that both sides of the comparison agree."""
    try:
        return host_name(name)
    except ValueError:  # then it is none of them
        return name.lower().rstrip(".")


def is_allowed_origin(origin: str | None, host: str, allowed: Iterable[str]) -> bool:
    """Whether a page of this origin may change things. No origin: not a browser. `null` is foreign to all."""
    if origin is None:
        return True
    if allowed := tuple(allowed):
        return origin.lower() in allowed
    try:
        parts = urlsplit(origin.lower())
    except ValueError:  # no origin at all, such as an IPv6 address that does not end
        return False
    if parts.scheme not in DEFAULT_PORTS:
        return False
    port = f":{DEFAULT_PORTS[parts.scheme]}"
    return parts.netloc.removesuffix(port) == host.lower().removesuffix(port)


def is_elsewhere(origin: str | None, host: str) -> bool:
    """Whether a page is let in by a list alone. Of the same site, browsers send our cookies with what it does."""
    return origin is not None and not is_allowed_origin(origin, host, ())


def media_type(content_type: str) -> str:
    """Return what a Content-Type says, parameters aside, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether the media type, parameters aside, is JSON's."""
    return media_type(content_type) == JSON
