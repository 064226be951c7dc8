"""Signing in with a browser: the code flow of OpenID Connect with PKCE, state and nonce. Pure: no network, no SQL.

What a browser is sent away with waits in a cookie of its own until it comes back: the state, which binds the answer to
this browser, the nonce, which binds the ID token to it, and the verifier, which binds the code to us. The cookie holds
those of all tabs in which somebody is signing in.
"""

import hmac
import json
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from service.platform.errors import Invalid
from service.platform.identity.answer import error_code
from service.platform.identity.caller import Flaw
from service.platform.identity.tokens import SKEW, Rules, check_parties, read_moment, refuse
from service.platform.settings import variable

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TYPES = frozenset({"logout+jwt", "jwt"})
YOUNG = 300.0  # seconds in which a logout token is taken
ROOM = 2_000  # bytes for several in the cookie, some six: proxies may take 4,096 of headers, browsers of a cookie
MOST = 8  # parts of it that are read: six sign-ins fill ROOM
OURS = "sign-in."  # what a nonce of ours begins with: by that an ID token made for a browser is known from a program's


@dataclass(frozen=True, slots=True)
class Pending:
    """A sign-in that has begun in a browser."""

    state: str
    nonce: str
    verifier: str
    target: str  # where to go then, on this site

    def cookie(self) -> str:
        return urlsafe_b64encode(json.dumps(asdict(self)).encode()).decode()


def begin(target: str) -> Pending:
    """Return a new sign-in. Raises Invalid for a target elsewhere."""
    state, nonce, verifier = (secrets.token_urlsafe(size) for size in (32, 32, 48))
    return Pending(state, OURS + nonce, verifier, check_target(target))


def check_target(target: str) -> str:
    """Return a path on this site. Raises Invalid for anything that a browser could take for another site."""
    if not target.startswith("/") or target[1:2] in {"/", "\\"} or "\\" in target or not target.isascii():
        raise Invalid(f"to: must be a path on this site, such as /, not {target[:40]!r}")
    if any(character <= " " or character == "\x7f" for character in target):
        raise Invalid("to: must be a path without blanks and control characters")
    return target


def add_pending(cookie: str, pending: Pending) -> str:
    """Return the cookie of a browser that begins one more sign-in, without the oldest ones that have no room in it."""
    kept = pending.cookie()
    for one in _sign_ins(cookie):
        longer = f"{kept}.{one.cookie()}"
        if len(longer) > ROOM:
            break
        kept = longer
    return kept


def drop_pending(cookie: str, state: str) -> str:
    """Return the cookie without a sign-in that is over."""
    return ".".join(one.cookie() for one in _sign_ins(cookie) if one.state != state)


def read_pending(cookie: str, state: str, *, secure: bool = True) -> Pending:
    """Return the sign-in that this browser began, if its state came back; `secure` is by https.

    Raises Unauthenticated.
    """
    pending = next((one for one in _sign_ins(cookie) if hmac.compare_digest(one.state.encode(), state.encode())), None)
    if pending is None:
        why = "by https: over http browsers keep its cookie on localhost alone, and Safari nowhere"
        anew = "begin anew" if cookie or secure else f"begin anew, {why}"
        refuse(f"this sign-in did not begin in this browser, or was ended before; {anew}", Flaw.SIGN_IN)
    return pending


def _sign_ins(cookie: str) -> Iterator[Pending]:
    """Yield what a cookie holds, the last begun first; a browser may send anything."""
    for part in cookie.split(".", MOST)[:MOST]:
        try:
            pending = Pending(**json.loads(urlsafe_b64decode(part)))
            ours = all(isinstance(one, str) and one.isascii() for one in asdict(pending).values())
            check_target(pending.target)
        except (ValueError, TypeError, AttributeError, RecursionError, Invalid):
            continue
        if ours:
            yield pending


def told(error: str | None) -> str:
    """Return what a provider's error code says, and what it is about; nothing for what is no such code."""
    if not (code := error_code(error)):
        return ""
    grants = f"{variable('auth_scopes')} must hold only what it grants to {variable('auth_client_id')}"
    return f": {code}; {grants}" if code == "invalid_scope" else f": {code}"


def authorization_url(endpoint: str, pending: Pending, *, client: str, redirect_uri: str, scopes: str) -> str:
    """Return where a browser goes to sign in."""
    challenge = urlsafe_b64encode(sha256(pending.verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": client,
        "redirect_uri": redirect_uri,
        "scope": scopes,
        "state": pending.state,
        "nonce": pending.nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


def check_id_token(claims: Mapping[str, Any], *, nonce: str, client: str) -> None:
    """Raise Unauthenticated unless a token that holds answers this very sign-in, and was made for this client."""
    if "nonce" not in claims:
        refuse("the ID token holds no nonce, which the identity provider was sent and has to repeat", Flaw.SIGN_IN)
    if not isinstance(claims["nonce"], str) or not hmac.compare_digest(claims["nonce"].encode(), nonce.encode()):
        refuse("the ID token answers another sign-in", Flaw.SIGN_IN)
    if claims.get("azp", client) != client:
        refuse("the ID token is for another client", Flaw.AUDIENCE)


def check_access_token(claims: Mapping[str, Any]) -> None:
    """Raise Unauthenticated for an ID token that a browser's sign-in was answered with, and for a token that is bound.

    The former is for us alone. Where the audience is the client's own name nothing else tells it. Other marks of ID
    tokens (`nonce`, `at_hash`) are also in what may be sent: ID tokens of Google's, and access tokens of Keycloak's
    before version 25. The latter (`cnf`, RFC 7800) holds only beside a proof of its sender's key, by DPoP or a
    certificate, at which nobody looks here.
    """
    if isinstance(nonce := claims.get("nonce"), str) and nonce.startswith(OURS):
        refuse("the token is the ID token of a browser's sign-in; send an access token", Flaw.TYPE)
    if claims.get("cnf") is not None:
        why = "which is not looked at here: ask the identity provider for one that is not bound"
        refuse(f"the token is bound to a key of its sender's (cnf), {why}", Flaw.TYPE)


@dataclass(frozen=True, slots=True)
class Logout:
    """Whose sessions the provider ends: one of its own, or all of a subject."""

    subject: str | None
    sid: str | None


def check_logout(claims: Mapping[str, Any], rules: Rules, *, now: float) -> Logout:
    """Return what a logout token with a good signature ends (OpenID Connect Back-Channel Logout 1.0, 2.6)."""
    check_parties(claims, rules, what="the logout token")
    made, ends = read_moment(claims, "iat"), read_moment({"exp": now + 1} | dict(claims), "exp")
    if not -SKEW <= now - made <= YOUNG + SKEW or now >= ends + SKEW:
        refuse("the logout token is not of now", Flaw.EXPIRED)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict) or "nonce" in claims:
        refuse("the token is no logout token", Flaw.TYPE)
    subject, sid = (claims.get(name) for name in ("sub", "sid"))
    logout = Logout(subject if isinstance(subject, str) else None, sid if isinstance(sid, str) else None)
    if not (logout.subject or logout.sid):
        refuse("the logout token says not whose session ends", Flaw.CLAIMS)
    return logout
