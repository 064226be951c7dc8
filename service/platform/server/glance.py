"""A request of the plainest kind, read at one glance. Pure; in doubt it leaves the work to h11.

h11 reads a head in some ninety calls, a tenth of what a small GET costs. Most requests are one packet with one whole
GET and nothing that says how a body or the connection goes on; nor has a HEAD, a DELETE or an OPTIONS a body that does
not say so. For those two regular expressions do, and what they find is what h11 finds:
tests/platform/server/test_glance.py has h11 judge random and hostile requests. The grammar is narrower than HTTP's on
purpose: a smuggled request needs two readers who differ over a byte, so whatever readers have ever differed over
(framing, folded lines, bare LF, control characters, space before a colon, a second Host) is h11's.
"""

import re
from typing import NamedTuple

# More than that is h11's to judge, and whether it is too much.
MOST_BYTES = 8_192

_LINE = rb"[A-Za-z][A-Za-z0-9-]*+: [!-~]++(?: ++[!-~]++)*+\r\n"
# A fragment, which no target has, is for whoever refuses it.
_WHOLE = re.compile(rb"(GET|HEAD|DELETE|OPTIONS) (/[!\"$-~]*+) HTTP/1\.1\r\n((?:" + _LINE + rb")++)\r\n")
_FIELD = re.compile(rb"([^:\r\n]++): (.+)\r\n")  # of what _WHOLE has found; a dot is quicker than a set of characters
# Fields that say how long a body is, what becomes of the connection, or what is to be said first.
_FRAMING = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_KEPT = (b"connection", b"keep-alive")  # what HTTP/1.1 does anyway


class Glance(NamedTuple):
    """What h11.Request has, under the same names."""

    target: bytes  # from its slash on
    headers: list[tuple[bytes, bytes]]  # names in lower case
    method: bytes
    http_version: bytes = b"1.1"


def read_at_a_glance(data: bytes) -> Glance | None:
    """Return the request that `data` is, to the last byte; None for anything that is h11's."""
    if len(data) > MOST_BYTES or (found := _WHOLE.fullmatch(data)) is None:
        return None
    method, target, fields = found.groups()
    headers = [(name.lower(), value) for name, value in _FIELD.findall(fields)]
    names = [name for name, _ in headers]
    if names.count(b"host") != 1:
        return None
    if not _FRAMING.isdisjoint(names) and any(name in _FRAMING and (name, value) != _KEPT for name, value in headers):
        return None
    return Glance(target, headers, method)
