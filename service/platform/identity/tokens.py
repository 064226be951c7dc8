"""What makes a token hold (RFC 7519, 8725, 9068): its form, its signature, its claims. Pure: no clock, no network.

A token's header is the word of whoever sent it. Two things are taken from it, the algorithm, which must be one of the
allowed, and the name of a key of the issuer's; keys and addresses in it (`jwk`, `jku`, `x5u`, `x5c`) are never read.
Each refusal is Unauthenticated with words that hold nothing of the token.
"""

import json
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from service.platform.identity.caller import Caller, Flaw, Unauthenticated
from service.platform.identity.public_keys import PublicKey
from service.platform.settings import variable

SKEW = 60.0  # seconds that the issuer's clock and ours may differ
MOST_CHARACTERS = 12_288  # with hundreds of groups a token has some thousand; all headers together have 16 kB
MOST_DEEP = 50  # objects and lists in each other; what comes of claims is walked by functions that call themselves
MOST_SUBJECT = 255  # characters (OpenID Connect Core 1.0, 2)

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
# What a refusal may repeat of a token, as it cannot be anything else (RFC 7518, 3.1; RFC 8037; RFC 8812; RFC 9864).
_NAMES = frozenset({"none", "EdDSA", "Ed25519", "Ed448", "ES256K"}) | {
    f"{kind}{bits}" for kind in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)
}
# An access token, or one that does not say; not one made for something else, such as a sign-out (RFC 8725, 3.11).
_TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt", "application/jwt"})


class _Registry(JWSRegistry):
    """joserfc's, for tokens as long as ours, with header fields that it does not know: those are to be ignored."""

    max_header_length = max_payload_length = max_signature_length = MOST_CHARACTERS

    def get_alg(self, name: str) -> Any:
        """Do not warn of the old name of Ed25519, which most issuers use."""
        return self.algorithms[name] if name == "EdDSA" and name in (self.allowed or ()) else super().get_alg(name)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a token must be, as the settings say."""

    issuer: str
    audience: str
    algorithms: Collection[str]
    audience_field: str = "auth_audience"  # of the settings, for words


@dataclass(frozen=True, slots=True)
class Header:
    algorithm: str
    kid: str | None


def read_header(token: str, rules: Rules, types: Collection[str] = _TYPES) -> Header:
    """Return what a token says of its signature. Raises Unauthenticated for one that cannot hold."""
    if len(token) > MOST_CHARACTERS:
        refuse(f"the token has more than {MOST_CHARACTERS} characters", Flaw.FORM)
    if not _FORM.fullmatch(token):
        wanted = f"ask the identity provider for one with the audience {variable('auth_audience')}"
        refuse(f"the token is no signed JWT; {wanted}", Flaw.FORM)
    header = _json_object(token.partition(".")[0])
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms:
        name = f"{algorithm}, which" if isinstance(algorithm, str) and algorithm in _NAMES else "an algorithm that"
        refuse(f"the token is signed with {name} {variable('auth_algorithms')} does not hold", Flaw.ALGORITHM)
    if not isinstance(kind, str) or kind.lower() not in types:
        refuse(f"the token is of another type: its typ must be one of {', '.join(sorted(types))}", Flaw.TYPE)
    if "crit" in header:
        refuse("the token demands an extension that is not known here", Flaw.FORM)
    if kid is not None and not isinstance(kid, str):
        refuse("the token names its key by something that is no text", Flaw.FORM)
    return Header(algorithm, kid)


def verify(token: str, header: Header, key: PublicKey, rules: Rules, *, now: float) -> Caller:
    """Return whoever a token speaks for at a Unix time. Raises Unauthenticated."""
    return check_claims(read_claims(token, header, key), rules, now=now)


def read_claims(token: str, header: Header, key: PublicKey) -> dict[str, Any]:
    """Return the claims of a token whose signature holds. Raises Unauthenticated."""
    if header.algorithm not in key.algorithms:
        refuse("the token's algorithm is not that of its key", Flaw.ALGORITHM)
    try:
        registry = _Registry(algorithms=[header.algorithm], strict_check_header=False)
        jws.deserialize_compact(token, key.key, registry=registry)
    except (JoseError, ValueError):
        refuse("the token's signature does not hold", Flaw.SIGNATURE)
    return _json_object(token.split(".")[1])


def check_parties(claims: Mapping[str, Any], rules: Rules, *, what: str = "the token") -> None:
    """Check from whom and for whom a token is; `what` it is called in words. Raises Unauthenticated."""
    if claims.get("iss") != rules.issuer:
        refuse(f"{what} is of another issuer: its iss must be {variable('auth_issuer')}", Flaw.ISSUER)
    audience = claims.get("aud")
    if rules.audience not in (audience if isinstance(audience, list) else [audience]):
        must = f"its aud must hold {variable(rules.audience_field)}"
        refuse(f"{what} is for another audience: {must}", Flaw.AUDIENCE)


def check_claims(claims: Mapping[str, Any], rules: Rules, *, now: float) -> Caller:
    """Return whoever the claims of a token with a good signature speak for. Raises Unauthenticated."""
    check_parties(claims, rules)
    if isinstance(claims.get("events"), dict):  # RFC 8417; of a sign-out's the typ may be JWT, the audience this one
        refuse("the token tells of events, such as a sign-out, and not who asks", Flaw.TYPE)
    expires = read_moment(claims, "exp") + SKEW
    if now >= expires:
        refuse("the token has expired", Flaw.EXPIRED)
    for name in ("nbf", "iat"):
        if name in claims and read_moment(claims, name) > now + SKEW:
            refuse("the token does not hold yet", Flaw.EARLY)
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MOST_SUBJECT:
        must = f"its sub must be a text of 1 to {MOST_SUBJECT} characters"
        refuse(f"the token does not say whose it is: {must}", Flaw.CLAIMS)
    return Caller(subject=subject, name=_name(claims, subject), scopes=_scopes(claims), expires=expires, claims=claims)


def add_claims(caller: Caller, told: dict[str, Any]) -> Caller:
    """Return a caller with the claims of the userinfo endpoint beside those of its token, which win.

    Claims of another subject are left out (OpenID Connect Core 1.0, 5.3.2), and such as no database stores.
    """
    if told.get("sub") != caller.subject or not _is_storable(told):
        return caller
    claims = {**told, **caller.claims}
    return replace(caller, name=_name(claims, caller.subject), claims=claims)


def refuse(why: str, flaw: Flaw) -> NoReturn:
    raise Unauthenticated(why, flaw=flaw)


def _json_object(segment: str) -> dict[str, Any]:
    """Return what a part of a token holds; a name given twice would mean one thing here and another elsewhere.

    Nor does it hold what no database stores: half of a character, a NUL, a number without end.
    """
    try:
        text = urlsafe_b64decode(segment + "=" * (-len(segment) % 4)).decode()
        read = json.loads(text, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        refuse("the token is no signed JWT", Flaw.FORM)
    if not isinstance(read, dict):
        refuse("the token is no signed JWT", Flaw.FORM)
    if _is_deep(read):  # first, as below each text takes a step for each level that it is in
        refuse(f"the token is more than {MOST_DEEP} levels deep", Flaw.FORM)
    if "\\u" in text and any(map(_UNSTORABLE.search, _texts(read))):
        refuse("the token holds what is no text", Flaw.FORM)
    return read


def _is_storable(document: dict[str, Any]) -> bool:
    try:
        long = len(json.dumps(document, allow_nan=False)) > MOST_CHARACTERS  # first, as C is quick to tell
    except (ValueError, RecursionError):
        return False
    return not (long or _is_deep(document) or any(map(_UNSTORABLE.search, _texts(document))))


def _is_deep(document: dict[str, Any]) -> bool:
    level: list[Any] = [document]
    for _ in range(MOST_DEEP):
        within = [one.values() if isinstance(one, dict) else one for one in level]
        level = [inner for values in within for inner in values if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        refuse("the token holds what is no number", Flaw.FORM)
    return number


def _texts(value: object) -> Iterator[str]:
    """Yield each name and text of a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        refuse("the token gives a name twice", Flaw.FORM)
    return made


def read_moment(claims: Mapping[str, Any], name: str) -> float:
    given = claims.get(name)
    if isinstance(given, bool) or not isinstance(given, int | float) or not abs(given) < 1e15 or math.isnan(given):
        refuse(f"the token's {name} is no time: it must be seconds since 1970", Flaw.CLAIMS)
    return float(given)


def _name(claims: Mapping[str, Any], subject: str) -> str:
    """Return what people call the caller."""
    given = (claims.get(name) for name in ("name", "preferred_username"))
    return next((name for name in given if isinstance(name, str) and name.strip()), subject)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return what the token allows: `scope` (RFC 9068), `scp` and `roles` (Entra), `permissions` (Auth0)."""
    found: set[str] = set()
    for name in ("scope", "scp", "roles", "permissions"):
        given = claims.get(name)
        if isinstance(given, str):
            found.update(given.split())
        elif isinstance(given, list):
            found.update(one for one in given if isinstance(one, str))
    return frozenset(found)
