"""Whoever asks, as handlers see it, and the two refusals that are about it."""

import enum
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from service.platform.errors import Forbidden, Refused


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever asks. Its `repr` holds nothing that identifies a person, as logs and tracebacks may show it."""

    subject: str = field(default="", repr=False)  # the issuer's, never changes; empty for a guest
    name: str = field(default="", repr=False)  # for people: may change, and may be another's too
    scopes: frozenset[str] = frozenset()
    expires: float = math.inf  # Unix time from which it is no longer taken
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the token's, as the issuer made them
    label: str = ""  # a keyed hash of the subject: what the log has instead

    @property
    def signed_in(self) -> bool:
        return bool(self.subject)

    def to_json(self) -> dict[str, Any]:
        """Return what the database keeps of it."""
        return asdict(self) | {"scopes": sorted(self.scopes)}

    @classmethod
    def from_json(cls, known: dict[str, Any]) -> Self:
        """Return whom the database knows."""
        return cls(**known | {"scopes": frozenset(known["scopes"])})


GUEST = Caller()
# Where an ASGI scope has whoever was found to ask, the session of a browser's that says so, by its hash, how long a
# websocket may stay, and the tickets that it was offered.
IN_SCOPE, IN_SESSION, STAY, TICKETS = "caller", "session", "stay", "tickets"


def caller_of(scope: Mapping[str, Any]) -> Caller | None:
    """Return who was found to ask, None when nobody looked."""
    return scope.get(IN_SCOPE)


def session_of(scope: Mapping[str, Any]) -> bytes | None:
    """Return the hash of the session that says who asks, None when something else does."""
    return scope.get(IN_SESSION)


class Flaw(enum.StrEnum):
    """Why a token, or whatever else proves who asks, does not hold: for the metrics, which count by it."""

    FORM = "form"
    ALGORITHM = "algorithm"
    TYPE = "type"
    KEY = "key"
    SIGNATURE = "signature"
    ISSUER = "issuer"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    EARLY = "early"
    CLAIMS = "claims"
    TICKET = "ticket"
    SIGN_IN = "sign-in"


class Unauthenticated(Refused):
    """Nobody has signed in, or what was sent to prove it does not hold."""

    status = 401
    reason = "unauthenticated"

    def __init__(self, message: str, *, flaw: Flaw | None = None) -> None:
        """Without a flaw nothing was sent."""
        super().__init__(message, reason=f"{self.reason}, {flaw}" if flaw else "")
        self.flaw = flaw

    @property
    def headers(self) -> dict[str, str]:
        """Say how to sign in; an error only to who sent a token (RFC 6750, 3.1)."""
        said = f' error="invalid_token", error_description="{self}"' if self.flaw else ""
        return {"WWW-Authenticate": f"Bearer{said}"}


class InsufficientScope(Forbidden):
    """The token lacks a scope that the route needs; the message says which."""

    reason = "scope"

    def __init__(self, message: str, *, scopes: tuple[str, ...]) -> None:
        super().__init__(message)
        self._scopes = scopes

    @property
    def headers(self) -> dict[str, str]:
        return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{" ".join(self._scopes)}"'}
