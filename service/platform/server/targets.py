"""The request line and the opening handshake, judged before anything is made of them. Pure.

A proxy may have a rule by path or method. So what reaches a route must be what the proxy read: nothing is completed,
merged or decoded into another path here, and nothing is guessed.
"""

import base64
import binascii
import re
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from service.platform.errors import Invalid

type HeaderList = list[tuple[bytes, bytes]]

_ABSOLUTE = re.compile(rb"https?://(?P<authority>([a-z0-9._~-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?)", re.IGNORECASE)
# A slash that is encoded is not the slash between two segments (RFC 3986, 2.2).
_ENCODED_SLASH = re.compile(rb"%2f", re.IGNORECASE)
# By these a path leads elsewhere (RFC 3986, 5.2.4); a proxy has gone there before it looks at its rules.
_DOTS = re.compile(rb"/(\.|%2e){1,2}(/|\Z)", re.IGNORECASE)
# Fields that are lists, and may come in several lines (RFC 9110, 5.3).
_LISTS = frozenset({b"connection", b"upgrade", b"sec-websocket-protocol", b"sec-websocket-extensions"})
VERSION = b"13"  # the only one of RFC 6455


def origin_form(method: bytes, target: bytes) -> tuple[bytes, bytes | None] | None:
    """Return path and query of a request target, and the authority that it names, if any; None when it is malformed.

    RFC 9112, 3.2: a path from its slash on, or an absolute URI, or `*` for OPTIONS; none has a fragment.
    """
    if b"#" in target:
        return None
    if target.startswith(b"/") or (target == b"*" and method == b"OPTIONS"):
        return target, None
    found = _ABSOLUTE.match(target)
    rest = target[found.end() :] if found else b"x"
    if found is None or rest[:1] not in {b"", b"/", b"?"}:
        return None
    return (rest if rest.startswith(b"/") else b"/" + rest), found["authority"]


def is_ambiguous(raw_path: bytes) -> bool:
    """Return whether a path could be taken for another one: by a segment that is empty or dots, or an encoded slash."""
    path = raw_path.partition(b"?")[0]
    return b"//" in path or _ENCODED_SLASH.search(path) is not None or _DOTS.search(path) is not None


def undecoded(path: bytes, query: bytes) -> Invalid | None:
    """Return what is wrong with a target that no text is written as: one reader replaces it, another leaves it."""
    for name, part in (("path", path), ("query", query)):
        try:
            unquote_to_bytes(part).decode()
        except UnicodeDecodeError as error:
            return Invalid(f"{name}: must be UTF-8, the byte 0x{error.object[error.start]:02x} is not")
    return None


def join_lists(headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
    """Return the headers with one line for each field that is a list; nothing in it is empty (RFC 9110, 5.6.1.2)."""
    joined: dict[bytes, list[bytes]] = {}
    others: HeaderList = []
    for name, value in headers:
        if name in _LISTS:
            joined.setdefault(name, []).extend(one for part in value.split(b",") if (one := part.strip()))
        else:
            others.append((name, value))
    return [*others, *((name, b", ".join(parts)) for name, parts in joined.items() if parts)]


def is_upgrade(headers: HeaderList) -> bool:
    """Return whether the headers ask for a websocket; most have no `Upgrade`, and then nothing is made of them."""
    if not any(name == b"upgrade" for name, _ in headers):
        return False
    fields = dict(join_lists(headers))
    return b"upgrade" in _tokens(fields.get(b"connection")) and b"websocket" in _tokens(fields.get(b"upgrade"))


def refused_handshake(headers: Iterable[tuple[bytes, bytes]]) -> tuple[int, HeaderList] | None:
    """Return status and headers of a refusal, or None for a handshake that is right (RFC 6455, 4.2.1 and 4.4)."""
    fields = [(name, value.strip()) for name, value in headers]
    if [value for name, value in fields if name == b"sec-websocket-version"] != [VERSION]:
        # Whoever sends an Upgrade names it in Connection (RFC 9110, 7.8): a proxy would hand it on otherwise.
        return 426, [(b"sec-websocket-version", VERSION), (b"upgrade", b"websocket"), (b"connection", b"upgrade")]
    if not all(value.isascii() for name, value in fields if name in _LISTS):  # of tokens (RFC 9110, 5.6.2)
        return 400, []
    keys = [value for name, value in fields if name == b"sec-websocket-key"]
    return None if len(keys) == 1 and _is_key(keys[0]) else (400, [])


def _tokens(value: bytes | None) -> set[bytes]:
    return {token.strip().lower() for token in (value or b"").split(b",")}


def _is_key(key: bytes) -> bool:
    try:
        return len(base64.b64decode(key, validate=True)) == 16 and len(key) == 24
    except binascii.Error:
        return False
