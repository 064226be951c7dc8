"""What a browser proves itself with: a random value that it has, and of which the database has only the hash."""

import re
import secrets
from hashlib import sha256

_FORM = re.compile(r"[A-Za-z0-9_-]{43}")  # 32 bytes, as secrets writes them


def make_id() -> tuple[str, bytes]:
    """Return a new value, and the hash by which it is known."""
    value = secrets.token_urlsafe(32)
    return value, _digest(value)


def read_id(value: str) -> bytes | None:
    """Return the hash by which a value is known, None for what none can be."""
    return _digest(value) if _FORM.fullmatch(value) else None


def _digest(value: str) -> bytes:
    return sha256(value.encode()).digest()
