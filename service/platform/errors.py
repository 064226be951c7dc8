"""The errors a client can cause or must be told, as a tree, and their one mapping to replies.

A class per thing the caller can do about it:

    ServiceError
    ├── Refused                 4xx: sending the same again will not help
    │   ├── Invalid             400
    │   ├── Unauthenticated     401  platform/identity
    │   ├── Forbidden           403
    │   ├── NotFound            404
    │   ├── RequestTimeout      408
    │   ├── Conflict            409  but for BeingAnswered, of platform/http, which says when it will
    │   ├── PreconditionFailed  412
    │   ├── TooLarge            413
    │   ├── UnsupportedMedia    415
    │   ├── Misdirected         421
    │   └── Unprocessable       422
    └── Unavailable             503: the same request may be sent again, after `retry_after` seconds
        ├── RateLimited         429
        ├── Busy                503  no database slot in time; nothing was sent
        ├── DatabaseAway        503  no connection to PostgreSQL; not committed
        ├── DatabaseUnable      503  PostgreSQL answers that it cannot: a standby, a full disk, a lock; not committed
        ├── DatabaseIncomplete  500  a table, a column or a right is not there; not committed
        ├── OutcomeUnknown      503  the line died between COMMIT and its answer
        ├── PeerAway            503  another service did not answer; whether it did what was asked is not known
        └── DeadlineExceeded    504  the request took too long; its query is gone

The message is shown to the client: what was wrong, the offending value, what would be right; never a secret. The reason
is for operators: one of few fixed words, in the line of the request that was refused, which deploy/runbook.md explains.
"""

import http
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from json.encoder import encode_basestring_ascii
from typing import Any, ClassVar, NotRequired, TypedDict

PROBLEM_JSON = "application/problem+json"

# What a caller sent comes back up to so many characters: a name or value, and a path, which cut would be another one.
MAX_SHOWN, MAX_INSTANCE = 100, 200
MAX_DETAIL = 1_000  # of a whole sentence, whoever put what into it

REASON, CUT = "reason", "cut"  # in a scope

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ServiceError(Exception):
    """An error of ours, unless a class below says otherwise. `str(error)` is shown to the client."""

    status: ClassVar[int] = 500
    reason = "error"
    retry_after: float | None = None

    def __init__(self, message: str = "", *, reason: str = "") -> None:
        """`reason` is a fixed word or two for the log, where the class's own says too little; never a caller's text."""
        super().__init__(message)
        if reason:
            self.reason = reason

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the reply; `Retry-After` is whole seconds, at least 1 (RFC 9110, 10.2.3)."""
        if self.retry_after is None:
            return {}
        return {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


class Refused(ServiceError):
    """The request itself is at fault; sending the same again will not help."""

    status = 400
    reason = "refused"


class Invalid(Refused):
    """A value is missing or outside its range; the message names it."""

    reason = "invalid"


class Forbidden(Refused):
    status = 403
    reason = "forbidden"


class NotFound(Refused):
    status = 404
    reason = "not found"


class RequestTimeout(Refused):
    """The client took too long to send its request."""

    status = 408
    reason = "body timeout"


class Conflict(Refused):
    status = 409
    reason = "conflict"


class PreconditionFailed(Refused):
    """What the request is about is not as `If-Match` says."""

    status = 412
    reason = "precondition"


class TooLarge(Refused):
    status = 413
    reason = "too large"


class UnsupportedMedia(Refused):
    status = 415
    reason = "unsupportedmedia"


class Misdirected(Refused):
    """The Host is not one of ours (RFC 9110, 15.5.20)."""

    status = 421
    reason = "misdirected"


class Unprocessable(Refused):
    """The request can be read, and contradicts one that came before it."""

    status = 422
    reason = "unprocessable"


class Unavailable(ServiceError):
    """Nothing is wrong with the request; it may be sent again after `retry_after` seconds."""

    status = 503
    reason = "unavailable"

    def __init__(self, message: str, *, retry_after: float = 1, reason: str = "") -> None:
        super().__init__(message, reason=reason)
        self.retry_after = retry_after


class RateLimited(Unavailable):
    status = 429
    reason = "rate"


class Busy(Unavailable):
    """No database slot within the wait; nothing was sent to the database."""

    reason = "database busy"


class DatabaseAway(Unavailable):
    """PostgreSQL cannot be reached, or the connection was lost; the unit is not committed."""

    reason = "database unreachable"


class DatabaseUnable(Unavailable):
    """PostgreSQL answered that it cannot serve this now, as `sqlstate` says; the unit is not committed."""

    reason = "database unable"

    def __init__(self, message: str, *, sqlstate: str) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate


class DatabaseIncomplete(Unavailable):
    """The database lacks what the unit needs, as `sqlstate` says; the unit is not committed.

    An error of ours to the client, who is told no time to come back at. It may be mended under a running service, as by
    a restore that has not ended: so whatever bears an outage bears this.
    """

    status = 500
    reason = "database incomplete"

    def __init__(self, message: str, *, sqlstate: str) -> None:
        super().__init__(message)
        self.retry_after = None
        self.sqlstate = sqlstate


class OutcomeUnknown(Unavailable):
    """The line died, or had to be cut, between sending COMMIT and its answer: it may be committed or not.

    Or COMMIT's wait for a synchronous standby was cancelled: it is committed, and lost if that one takes over.
    """

    reason = "outcome unknown"


class PeerAway(Unavailable):
    """Another service did not answer, in time or at all: it may have done what it was asked, or not."""

    reason = "peer unreachable"


class DeadlineExceeded(Unavailable):
    status = 504
    reason = "deadline"


class Problem(TypedDict):
    """What went wrong, as RFC 9457 has it; `request_id` is in the log too. A long path is left out as `instance`."""

    type: str
    title: str
    status: int
    detail: str
    instance: NotRequired[str]
    request_id: NotRequired[str]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client is sent for an error, ahead of the framework and inside it alike."""

    status: int
    headers: dict[str, str]
    body: bytes


def cut(text: str, most: int = MAX_SHOWN) -> str:
    """Return a caller's text as it may be repeated in an answer or a line of the log."""
    return text if len(text) <= most else text[:most] + "…"


def plain(text: str) -> str:
    """Return a text with its control characters escaped but for line ends and tabs: a terminal would obey them."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def shown(value: object) -> str:
    """Return `cut(str(value))` of a document's part, at the cost of what is shown: it may be all of a large body."""
    return cut(str(_beginning(value, [MAX_SHOWN])))


def _beginning(value: object, left: list[int]) -> object:
    """Return a value without what comes behind so many others: each of them is a character at least."""
    left[0] -= 1
    if isinstance(value, str):
        return value[: MAX_SHOWN + 1]
    if isinstance(value, list):
        return [_beginning(one, left) for one in takewhile(lambda _: left[0] >= 0, value)]
    if isinstance(value, dict):
        pairs = takewhile(lambda _: left[0] >= 0, value.items())
        return {_beginning(key, left): _beginning(one, left) for key, one in pairs}
    return value


def note_reason(scope: Any, error: type[ServiceError] | ServiceError) -> None:
    """Let the line of a request, or a websocket, say why it was refused."""
    scope[REASON] = error.reason


def note_cut(scope: Any, reason: str, *, status: int | None = None) -> None:
    """Let the line of a request say why its answer ended in the middle, and with a status its metrics that it failed.

    The line has the status that was sent: only the end of the connection told the client.
    """
    scope[REASON] = f"cut, {reason}"
    if status is not None:
        scope[CUT] = status


def reply_to(error: ServiceError, *, instance: str, request_id: str) -> Reply:
    """Return the reply to an error of ours about a path, in a request of this id."""
    return make_reply(error.status, str(error), error.headers, instance=instance, request_id=request_id)


def make_reply(status: int, detail: str, headers: Mapping[str, str], *, instance: str, request_id: str) -> Reply:
    """Return a reply whose body is a problem document (RFC 9457) for a status and what the client should know."""
    body = _opening(status, cut(detail, MAX_DETAIL))
    if instance and len(instance) <= MAX_INSTANCE:
        body += f', "instance": {encode_basestring_ascii(instance)}'
    if request_id:
        body += f', "request_id": {encode_basestring_ascii(request_id)}'
    always = {"Content-Type": PROBLEM_JSON, "Cache-Control": "no-store"}
    return Reply(status, {**headers, **always}, f"{body}}}".encode())


@lru_cache(maxsize=64)
def _opening(status: int, detail: str) -> str:
    """Return a problem document without its end: what it says of each request alike, as most refusals do."""
    problem = Problem(type="about:blank", title=phrase_of(status), status=status, detail=detail)
    return json.dumps(problem).removesuffix("}")


def phrase_of(status: int) -> str:
    """Return what a status is called, which may be a feature's own."""
    return http.HTTPStatus(status).phrase if status in http.HTTPStatus else "Unknown Status"


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors of a group, however deep they lie; one that is no group is all there is."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from leaves(member)
    else:
        yield error
