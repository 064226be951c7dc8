"""What is sent in place of a good token: on real sockets, with a real issuer, none of it is let in."""

import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import httpx2
import pytest
from joserfc import jwk
from joserfc.errors import SecurityWarning

from service.platform.identity import Unauthenticated
from service.platform.identity.public_keys import public_keys
from service.platform.identity.sign_in import LOGOUT_EVENT, LOGOUT_TYPES
from service.platform.identity.tokens import Rules, check_claims, read_header, verify
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.issuer import AUDIENCE, Issuer, sign
from tests.platform.identity.world import World, upgrade, world

OTHERS = jwk.ECKey.generate_key("P-256", {"kid": "theirs"})


def part(value: Any) -> str:
    given = value if isinstance(value, bytes) else json.dumps(value).encode()
    return urlsafe_b64encode(given).rstrip(b"=").decode()


def forged(issuer: Issuer, header: dict[str, Any], signature: str = "") -> str:
    return f"{part(header)}.{part(issuer.claims())}.{signature}"


def with_the_public_key(issuer: Issuer) -> str:
    """HMAC with the public key's text as the secret: the confusion of algorithms."""
    secret = issuer.key.as_pem(private=False)
    signed = f"{part({'alg': 'HS256', 'kid': issuer.kid})}.{part(issuer.claims())}"
    return f"{signed}.{part(hmac.digest(secret, signed.encode(), 'sha256'))}"


def twice(issuer: Issuer) -> str:
    body = json.dumps(issuer.claims(sub="eve"))[:-1] + ', "sub": "ada"}'
    return sign({"alg": "ES256", "kid": issuer.kid}, body.encode(), issuer.key)


def self_signed(**header: Any) -> Callable[[Issuer], str]:
    """A good token but for its key, which it brings along or says where to find."""
    return lambda issuer: issuer.token(header={"kid": issuer.kid} | header, key=OTHERS)


def changed(**claims: Any) -> Callable[[Issuer], str]:
    return lambda issuer: issuer.token(**claims)


def headed(**header: Any) -> Callable[[Issuer], str]:
    return lambda issuer: issuer.token(header=header)


def cut(count: int) -> Callable[[Issuer], str]:
    return lambda issuer: issuer.token()[:count]


ATTACKS: dict[str, Callable[[Issuer], str]] = {
    "alg none": lambda issuer: forged(issuer, {"alg": "none"}),
    "alg None": lambda issuer: forged(issuer, {"alg": "None", "kid": issuer.kid}, "AAAA"),
    "alg nOnE with a signature": lambda issuer: forged(issuer, {"alg": "nOnE", "kid": issuer.kid}, "AAAA"),
    "no alg": lambda issuer: forged(issuer, {"kid": issuer.kid}, "AAAA"),
    "alg a list": lambda issuer: forged(issuer, {"alg": ["ES256"], "kid": issuer.kid}, "AAAA"),
    "alg not allowed": lambda issuer: sign(
        {"alg": "ES384", "kid": issuer.kid}, issuer.claims(), jwk.ECKey.generate_key("P-384")
    ),
    "HS256 with the public key": with_the_public_key,
    "an empty signature": lambda issuer: issuer.token().rpartition(".")[0] + ".",
    "a signature of zeros": lambda issuer: forged(issuer, {"alg": "ES256", "kid": issuer.kid}, part(bytes(64))),
    "another's signature": lambda issuer: issuer.token().rpartition(".")[0] + "." + issuer.token(sub="b").split(".")[2],
    "an unknown key": lambda issuer: issuer.token(header={"kid": "theirs"}, key=OTHERS),
    "no kid where there are two keys": headed(kid=None),
    "no kid and another key": lambda issuer: issuer.token(header={"kid": None}, key=OTHERS),
    "kid a number": headed(kid=7),
    "kid a list": lambda issuer: issuer.token(header={"kid": [issuer.kid]}),
    "kid a path": headed(kid="../../dev/null"),
    "an embedded key": self_signed(jwk=OTHERS.as_dict(private=False)),
    "an embedded key under its own kid": self_signed(jwk=OTHERS.as_dict(private=False), kid="theirs"),
    "a key's address": self_signed(jku="https://evil.example/keys"),
    "a certificate's address": self_signed(x5u="https://evil.example/cert"),
    "a certificate": self_signed(x5c=["MIIB"]),
    "crit": headed(crit=["exp"], exp=1),
    "crit empty": headed(crit=[]),
    "typ of a sign-out": headed(typ="logout+jwt"),
    "a sign-out's, whose typ does not say so": lambda issuer: issuer.token(
        header={"typ": "JWT"}, events={LOGOUT_EVENT: {}}, sid="s"
    ),
    "typ of a proof": headed(typ="dpop+jwt"),
    "typ a number": headed(typ=1),
    "another issuer": changed(iss="https://evil.example"),
    "the issuer with a slash": lambda issuer: issuer.token(iss=issuer.url + "/"),
    "no issuer": changed(iss=None),
    "another audience": changed(aud="https://other.example"),
    "audiences without ours": changed(aud=["https://other.example", AUDIENCE + "/"]),
    "audience an object": changed(aud={AUDIENCE: 1}),
    "no audience": changed(aud=None),
    "bound to a key of its sender's (DPoP)": changed(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}),
    "bound to a certificate of its sender's": changed(cnf={"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}),
    "bound by what is no object": changed(cnf="x"),
    "expired": changed(exp=time.time() - 61),
    "no expiry": changed(exp=None),
    "expiry a text": changed(exp="9999999999"),
    "expiry true": changed(exp=True),
    "expiry without end": changed(exp=float("inf")),
    "expiry no number": changed(exp=float("nan")),
    "not yet": lambda issuer: issuer.token(nbf=time.time() + 90),
    "not yet, a text": changed(nbf="0"),
    "from the future": lambda issuer: issuer.token(iat=time.time() + 90),
    "no subject": changed(sub=None),
    "an empty subject": changed(sub=""),
    "subject a number": changed(sub=7),
    "a long subject": changed(sub="a" * 256),
    "claims given twice": twice,
    "claims a list": lambda issuer: sign({"alg": "ES256", "kid": issuer.kid}, b"[]", issuer.key),
    "claims no JSON": lambda issuer: sign({"alg": "ES256", "kid": issuer.kid}, b"\xff", issuer.key),
    "claims nested deeply": lambda issuer: sign({"alg": "ES256", "kid": issuer.kid}, b"[" * 9_000, issuer.key),
    "claims too deep to be kept": changed(x=json.loads("[" * 50 + "]" * 50)),
    "truncated": cut(-1),
    "half": cut(100),
    "one part": cut(20),
    "a dot": lambda _: ".",
    "dots": lambda _: "..",
    "five parts": lambda issuer: issuer.token() + ".a.b",
    "padding": lambda issuer: issuer.token() + "=",
    "a blank inside": lambda issuer: issuer.token().replace(".", ". ", 1),
    "a header given twice": lambda issuer: f"{part(b'{"alg":"none","alg":"ES256","kid":"key-1"}')}.{part({})}.AAAA",
    "a subject that no database stores": changed(sub="a\0b"),
    "half a character for a subject": changed(sub="\ud800"),
    "half a character in a claim": changed(groups=[{"\udfff": 1}]),
    "a NUL in a claim": changed(address={"street": "\0"}),
    "a number beyond all": lambda issuer: sign(
        {"alg": "ES256", "kid": issuer.kid}, json.dumps(issuer.claims(x=7e7)).replace("70000000.0", "1e999").encode(),
        issuer.key,
    ),
    "13 kB": changed(padding="x" * 9_500),
}  # fmt: skip


async def test_no_attack_is_let_in(make_settings: MakeSettings) -> None:
    async with world(make_settings) as here:
        assert await here.ask(here.issuer.token()) == 200
        accepted = {name for name, attack in ATTACKS.items() if await here.ask(attack(here.issuer)) != 401}
        upgraded = {name for name, attack in ATTACKS.items() if await upgrade(here, token=attack(here.issuer)) != 401}
        too_large = await ask_plainly(here, here.issuer.token(padding="x" * 100_000))

        assert await here.ask(here.issuer.token()) == 200

    assert (accepted, upgraded) == (set(), set())
    assert too_large == 431
    print(f"{len(ATTACKS)} attacks, 0 accepted")


async def test_a_key_that_is_not_named_is_told_from_one_that_is_not_there(make_settings: MakeSettings) -> None:
    async with world(make_settings) as here:
        details = [
            (await here.client.get("/members", headers={"Authorization": f"Bearer {token}"})).json()["detail"]
            for token in (here.issuer.token(header={"kid": None}), here.issuer.token(header={"kid": "key-9"}))
        ]

    assert details == [
        "the token does not name its key (kid), and the issuer does not have just one",
        "the token is signed with a key that the issuer does not have",
    ]


async def ask_plainly(here: World, token: str) -> int:
    """Ask with a client that holds no answer against the document: the server refuses before there is a route."""
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}) as client:
        return (await client.get(f"{here.urls.public}/members")).status_code


@pytest.mark.parametrize(
    "make",
    [
        lambda issuer: issuer.token(aud=["https://other.example", AUDIENCE]),
        lambda issuer: issuer.token(exp=time.time() - 50),  # the clocks may differ by 60 s
        lambda issuer: issuer.token(nbf=time.time() + 50),
        lambda issuer: issuer.token(header={"typ": None, "x5t": "abc", "nonce": "what Entra adds", "kid": issuer.kid}),
        lambda issuer: issuer.token(header={"typ": "JWT"}),
        lambda issuer: issuer.token(header={"typ": "application/AT+JWT"}),
        lambda issuer: issuer.token(header={"jku": "https://evil.example/keys"}),  # ours all the same
        lambda issuer: issuer.token(padding="x" * 8_000),
        lambda issuer: issuer.token(x=json.loads("[" * 49 + "]" * 49), events=["a", "b"]),
    ],
)
async def test_what_honest_issuers_send_is_let_in(make_settings: MakeSettings, make: Callable[[Issuer], str]) -> None:
    async with world(make_settings) as here:
        assert await here.ask(make(here.issuer)) == 200


def usable(*keys: dict[str, Any]) -> set[str]:
    return set(public_keys({"keys": list(keys)}))


def test_of_a_providers_keys_only_those_for_signatures_are_taken() -> None:
    good = jwk.RSAKey.generate_key(2048, {"kid": "good"}).as_dict(private=False)
    with pytest.warns(SecurityWarning, match="2048"):
        short = jwk.RSAKey.generate_key(1024, {"kid": "short"}).as_dict(private=False)
    symmetric = jwk.OctKey.generate_key(256, {"kid": "symmetric"}).as_dict(private=True)
    ed25519 = jwk.OKPKey.generate_key("Ed25519", {"kid": "ed25519"}).as_dict(private=False)

    assert usable(good, short, symmetric, ed25519) == {"good", "ed25519"}
    assert usable(good | {"use": "enc"}, good | {"alg": "HS256"}, good | {"n": 7}, good | {"n": "!"}, {}) == set()
    assert public_keys({"keys": [good | {"alg": "PS256"}]})["good"].algorithms == {"PS256"}
    assert public_keys({"keys": {}}) == public_keys({}) == {}


@pytest.mark.parametrize(
    "odd",
    [
        {"kty": ["RSA"]}, {"kty": {}}, {"kty": None}, {"kty": "EC", "crv": ["P-256"], "x": "AQ", "y": "AQ"},
        {"kty": "EC", "crv": "P-256", "x": "AQ" * 22, "y": "AQ" * 22}, {"kty": "EC", "crv": "P-256", "x": "", "y": ""},
        {"kty": "EC", "crv": "P-256", "x": "\ud800", "y": "é"}, {"kty": "EC", "crv": "secp256k1", "x": "AQ", "y": "AQ"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AQ" * 500}, {"kty": "OKP", "crv": "X25519", "x": "A" * 43},
        {"kty": "RSA", "n": "_" * 400, "e": ""}, {"kty": "RSA", "n": "_" * 400, "e": "_" * 400},
        {"kty": "RSA", "n": "A" * 400, "e": "AQAB"}, {"kty": "RSA", "n": "_" * 400, "e": "AQAB", "use": ["sig"]},
        {"kty": "RSA", "n": "_" * 40_000, "e": "AQAB"}, 7, None, [],
        {"kty": "EC", "crv": "Ed25519", "x": "AQ", "y": "AQ"}, {"kty": "OKP", "crv": "P-256", "x": "AQ"},
    ],
)  # fmt: skip
def test_an_odd_key_is_left_out_and_the_others_are_taken(odd: Any) -> None:
    good = jwk.OKPKey.generate_key("Ed25519", {"kid": "good"}).as_dict(private=False)

    assert usable(odd, good) == {"good"}


def test_a_signature_is_as_long_as_its_key() -> None:
    p, q, e = 2**3217 - 1, 2**4253 - 1, 65_537  # known primes: to find some of this size takes seconds
    size = ((p * q).bit_length() + 7) // 8
    shown = {"kty": "RSA", "kid": "long", "n": part((p * q).to_bytes(size)), "e": part(e.to_bytes(3))}
    signed = f"{part({'alg': 'RS256', 'kid': 'long'})}.{part(CLAIMS)}"
    digest = bytes.fromhex("3031300d060960864801650304020105000420") + sha256(signed.encode()).digest()
    padded = b"\0\1" + (b"\0" + digest).rjust(size - 2, b"\xff")  # RFC 8017, 9.2
    signature = pow(int.from_bytes(padded), pow(e, -1, (p - 1) * (q - 1)), p * q)
    token, rules = f"{signed}.{part(signature.to_bytes(size))}", Rules("i", "a", {"RS256"})

    key = public_keys({"keys": [shown]})["long"]

    assert verify(token, read_header(token, rules), key, rules, now=0).subject == "s"


def test_a_key_is_used_with_its_own_algorithm_alone() -> None:
    pair = jwk.RSAKey.generate_key(2048)
    [key] = public_keys({"keys": [pair.as_dict(private=False) | {"alg": "PS256"}]}).values()
    rules = Rules("i", "a", {"RS256", "PS256"})
    for algorithm in ("PS256", "RS256"):
        token = sign({"alg": algorithm}, CLAIMS, pair)
        if algorithm == "PS256":
            assert verify(token, read_header(token, rules), key, rules, now=0).subject == "s"
        else:
            with pytest.raises(Unauthenticated, match="not that of its key"):
                verify(token, read_header(token, rules), key, rules, now=0)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda token: token + "=", "no signed JWT"),
        (lambda token: token + "\n", "no signed JWT"),
        (lambda token: token + ".e30", "no signed JWT"),
        (lambda token: token.rpartition(".")[0] + ".", "no signed JWT"),
        (lambda token: token + "A" * 12_288, "more than 12288 characters"),
    ],
)
def test_a_token_s_form_is_looked_at_first(wrong: Callable[[str], str], said: str) -> None:
    token = f"{part({'alg': 'ES256'})}.{part(CLAIMS)}.AAAA"
    assert read_header(token, RULES).algorithm == "ES256"
    with pytest.raises(Unauthenticated, match=said):
        read_header(wrong(token), RULES)


CLAIMS: dict[str, Any] = {"iss": "i", "aud": "a", "sub": "s", "exp": 100}
RULES = Rules("i", "a", {"ES256"})


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "read write"}, {"read", "write"}),
        ({"scp": "read", "roles": ["Admin"]}, {"read", "Admin"}),
        ({"scp": ["read"], "permissions": ["orders:read", 7]}, {"read", "orders:read"}),
        ({"scope": 7, "roles": {"x": 1}}, set()),
    ],
)
def test_scopes_are_read_as_the_usual_providers_write_them(claims: dict[str, Any], scopes: set[str]) -> None:
    assert check_claims(CLAIMS | claims, RULES, now=0).scopes == scopes


@pytest.mark.parametrize(
    ("claims", "name"),
    [({"name": "Ada"}, "Ada"), ({"name": " ", "preferred_username": "ada"}, "ada"), ({"name": 7}, "s"), ({}, "s")],
)
def test_a_name_is_what_the_issuer_calls_the_caller(claims: dict[str, Any], name: str) -> None:
    assert check_claims(CLAIMS | claims, RULES, now=0).name == name


def test_a_token_holds_until_its_expiry_and_the_skew() -> None:
    assert check_claims(CLAIMS, RULES, now=159.9).expires == 160
    with pytest.raises(Unauthenticated, match="has expired"):
        check_claims(CLAIMS, RULES, now=160)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"iss": "x"}, "the token is of another issuer: its iss must be SERVICE_AUTH_ISSUER"),
        ({"aud": "x"}, "the token is for another audience: its aud must hold SERVICE_AUTH_AUDIENCE"),
        ({"sub": ""}, "the token does not say whose it is: its sub must be a text of 1 to 255 characters"),
        ({"exp": None}, "the token's exp is no time: it must be seconds since 1970"),
        ({"exp": 10**400}, "the token's exp is no time: it must be seconds since 1970"),
        ({"nbf": "x"}, "the token's nbf is no time: it must be seconds since 1970"),
    ],
)
def test_a_refusal_says_what_a_claim_must_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        check_claims(CLAIMS | changes, RULES, now=0)

    assert str(refused.value) == said


@pytest.mark.parametrize(
    ("header", "types", "said"),
    [
        ({"alg": "PS256"}, (), "the token is signed with PS256, which SERVICE_AUTH_ALGORITHMS does not hold"),
        ({"alg": "a secret"}, (), "the token is signed with an algorithm that SERVICE_AUTH_ALGORITHMS does not hold"),
        ({"alg": ["PS256"]}, (), "the token is signed with an algorithm that SERVICE_AUTH_ALGORITHMS does not hold"),
        ({"typ": "x"}, (), "the token is of another type: its typ must be one of application/at+jwt"),
        ({"typ": "at+jwt"}, (LOGOUT_TYPES,), "the token is of another type: its typ must be one of jwt, logout+jwt"),
    ],
)
def test_a_refusal_says_what_a_header_must_be(header: dict[str, Any], types: tuple[Any, ...], said: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        read_header(f"{part({'alg': 'ES256'} | header)}.{part(CLAIMS)}.AAAA", RULES, *types)

    assert str(refused.value).startswith(said)


def test_what_is_too_deep_is_not_looked_through() -> None:
    deep = b'{"x": ' + b"[" * 900 + b'"\\ud800"' + b"]" * 900 + b"}"
    with pytest.raises(Unauthenticated, match="more than 50 levels deep"):  # of texts in there each takes 900 steps
        read_header(f"{part(deep)}.{part(CLAIMS)}.AAAA", RULES)


def test_of_an_opaque_token_it_is_said_how_to_get_another() -> None:
    with pytest.raises(Unauthenticated) as refused:
        read_header("ya29.a0AfH6SMBx", RULES)

    wanted = "ask the identity provider for one with the audience SERVICE_AUTH_AUDIENCE"
    assert str(refused.value) == f"the token is no signed JWT; {wanted}"


@pytest.mark.parametrize("token", ["a.b", "a.b.c.d", "a.b.c", "\n".join("abc"), "x" * 20_000])
def test_a_refusal_repeats_nothing_of_the_token(token: str) -> None:
    with pytest.raises(Unauthenticated) as refused:
        read_header(token, RULES)

    assert token[:10] not in str(refused.value)
    assert '"' not in str(refused.value)
    assert refused.value.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token", error_description="the ')
