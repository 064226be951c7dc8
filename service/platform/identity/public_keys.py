"""The keys in a provider's document (JWKS, RFC 7517) that may verify a token: public, for signatures, long enough.

Anything else in it is left out: a symmetric key there would let whoever reads it sign.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwk
from joserfc.errors import JoseError

MOST_KEYS = 100
SHORTEST_RSA, LONGEST_RSA = 2048, 16_384  # bits; OpenSSL verifies with none that is longer
_PARTS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_ALGORITHMS = {  # of a kind of key and its curve
    ("RSA", None): frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
    ("EC", "P-256"): frozenset({"ES256"}),
    ("EC", "P-384"): frozenset({"ES384"}),
    ("EC", "P-521"): frozenset({"ES512"}),
    ("OKP", "Ed25519"): frozenset({"EdDSA", "Ed25519"}),
}


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key and the algorithms that it may be used with. Equal when it is the same key."""

    parts: tuple[tuple[str, str], ...]
    algorithms: frozenset[str]
    key: jwk.Key = field(compare=False, repr=False)


def public_keys(document: Mapping[str, Any]) -> dict[str, PublicKey]:
    """Return the usable keys by their `kid`; "" for one without, which counts when it is alone."""
    given = document.get("keys")
    found: dict[str, PublicKey] = {}
    for one in given[:MOST_KEYS] if isinstance(given, list) else ():
        if isinstance(one, dict) and (key := _read(one)) is not None:
            kid = one.get("kid", "")
            found.setdefault(kid if isinstance(kid, str) else "", key)
    return found


def _read(given: Mapping[str, Any]) -> PublicKey | None:
    kind = given.get("kty")
    if not isinstance(kind, str) or kind not in _PARTS or given.get("use", "sig") != "sig":
        return None
    parts = {"kty": kind} | {name: given.get(name) for name in _PARTS[kind]}
    if not all(isinstance(value, str) for value in parts.values()):
        return None
    algorithms = _ALGORITHMS.get((kind, parts.get("crv")), frozenset())
    if "alg" in given:
        algorithms &= {given["alg"]} if isinstance(given["alg"], str) else set()
    if not algorithms or (kind == "RSA" and not SHORTEST_RSA <= 6 * len(str(parts["n"])) <= LONGEST_RSA + 6):
        return None  # 6 bits a character
    try:
        key = jwk.import_key({name: str(value) for name, value in parts.items()})
        _ = key.public_key  # made now, as the numbers are checked only then
    except (JoseError, ValueError, TypeError):
        return None
    return PublicKey(tuple(sorted((name, str(value)) for name, value in parts.items())), frozenset(algorithms), key)
