"""The head of a whole response as bytes, for the plain case that most responses are.

Pure; in doubt it leaves the work to h11.
"""

import string
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus

# What every response carries, a probe's included, unless it says otherwise itself.
ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
)

# These say how long the body is, or what becomes of the connection: h11 knows what follows from them.
_FRAMING = frozenset({b"transfer-encoding", b"connection", b"upgrade", b"trailer"})
# Of the first there is no length, and that of the second is the one of what its client has (RFC 9110, 8.6).
BODILESS = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})
# What the name of a field is made of (RFC 9110, 5.6.2), in lower case.
_OF_NAMES = b"!#$%&'*+-.^_`|~" + string.digits.encode() + string.ascii_lowercase.encode()


def encode_head(status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> bytes | None:
    """Return what goes before `body`, if the connection is kept after it; None when it is not of the plain kind.

    Plain is: a final status that has a body, one right Content-Length, and nothing in a header that could end it or
    make another of it.
    """
    lengths = [value for name, value in headers if name == b"content-length"]
    if status < 200 or status in BODILESS or lengths != [b"%d" % len(body)]:
        return None
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
        return None
    names = [name for name, _ in headers]
    if b"" in names or b"".join(names).translate(None, _OF_NAMES):
        return None
    if not _FRAMING.isdisjoint(names) or names.count(b"date") > 1:
        return None
    return b"%b%b\r\n" % (_status_line(status), lines)


@lru_cache(maxsize=64)
def _status_line(status: int) -> bytes:
    phrase = HTTPStatus(status).phrase if status in HTTPStatus else ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()
