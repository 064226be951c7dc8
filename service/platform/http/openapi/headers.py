"""The headers that the document tells of, of requests and of answers, and the answer to a request with too many."""

from typing import Any

from service.platform.errors import DatabaseIncomplete, Forbidden, ServiceError, Unavailable
from service.platform.identity import Unauthenticated
from service.platform.server import MAX_HEADER_BYTES

IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same request with the same key has its effect once, and gets the same answer for 24 hours; "
    "a 409 with `Retry-After` while another is being answered, after which it is to be sent again.",
    "schema": {"type": "string", "pattern": r"^[!#-\[\]-~]{1,255}$"},
}
# Sent ahead of all that a route says, a probe as well: a bare status, as the request was not read to its end.
TOO_LARGE = {
    "description": f"Request line and headers are over {MAX_HEADER_BYTES} bytes; there is no body",
    "headers": {},
}


def _header(description: str, *, required: bool = True, kind: str = "string") -> dict[str, Any]:
    return {"required": required, "description": description, "schema": {"type": kind}}


ID = {"X-Request-Id": _header("also in the log")}
REPLAYED = {
    "Idempotency-Replayed": _header("`true` where an earlier request of the key was answered so", required=False)
}
_RETRY = {"Retry-After": _header("seconds", kind="integer")}
_SIGN_IN = {"WWW-Authenticate": _header("how to sign in, and what is wrong with the token")}
_SCOPE = {"WWW-Authenticate": _header("which scope is needed, where the token lacks one", required=False)}


def headers_of(error: type[ServiceError]) -> dict[str, Any]:
    """Return the headers of the answer to an error, as its class has them."""
    kinds = {DatabaseIncomplete: {}, Unavailable: _RETRY, Unauthenticated: _SIGN_IN, Forbidden: _SCOPE}
    return ID | next((headers for kind, headers in kinds.items() if issubclass(error, kind)), {})
