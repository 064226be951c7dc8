"""An identity provider for tests: discovery, keys, sign-in, and tokens of any kind, also such as no honest one signs.

It is served by our own server on a port of its own. A test signs with `token`, changes keys with `rotate`, and counts
in `fetches` how often the keys were asked for. A person approves a sign-in by `approve`.
"""

import json
import secrets
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import trio
from joserfc import jwk, jws
from joserfc.jws import JWSRegistry
from quart import Response, request
from quart_trio import QuartTrio

from service.platform.lifecycle import Lifecycle
from service.platform.server import ServerStatistics, listener_url, open_listener, serve
from service.platform.settings import PlatformSettings

AUDIENCE, CLIENT = "https://api.example.org", "orders-web"


class Issuer:
    """One authorization server; `url` is its name."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fetches = 0
        self.away = False  # whether it answers 503
        self.headers = {"Cache-Control": "max-age=600"}
        self.secret = "the client's secret"
        self._codes: dict[str, tuple[dict[str, str], dict[str, Any]]] = {}
        self.omits_id_token = False
        self.granted: str | None = None  # the scopes that it says beside the tokens, if any
        self.userinfo: dict[str, Any] | None = None  # what it tells whoever has an access token of its own
        self._given: set[str] = set()
        self.takes = "client_secret_basic"  # how its client has to send the secret
        self.more_keys: list[dict[str, Any]] = []  # to be shown beside its own
        self.odd: dict[str, Any] = {}  # what its discovery document says in place of the truth
        self.sign_with("ES256")

    def sign_with(self, algorithm: str) -> None:
        """Sign by this algorithm from now on, with keys of its kind."""
        self.algorithm = algorithm
        # the one it signs with, and the next, shown ahead
        self.keys = [make_key("key-1", algorithm), make_key("key-2", algorithm)]

    def rotate(self) -> None:
        """Sign with the next key from now on; the one before it is gone."""
        self.keys = [self.keys[1], make_key(f"key-{int(str(self.keys[1].kid)[4:]) + 1}", self.algorithm)]

    @property
    def key(self) -> Any:
        return self.keys[0]

    @property
    def kid(self) -> str:
        return str(self.key.kid)

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Return claims of a good token, changed; None leaves one out."""
        now = time.time()
        good = {
            "iss": self.url, "aud": AUDIENCE, "sub": "ada", "name": "Ada", "iat": now, "exp": now + 600,
            "scope": "openid",
        }  # fmt: skip
        return {name: value for name, value in (good | changes).items() if value is not None}

    def token(self, *, header: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> str:
        """Return a signed token whose header and claims are those of a good one but for these."""
        made = {"alg": self.algorithm, "typ": "at+jwt", "kid": self.kid} | (header or {})
        given = {name: value for name, value in made.items() if value is not None}
        return sign(given, self.claims(**claims), key or self.key)

    def approve(self, url: str, **claims: Any) -> str:
        """Return where a browser is sent back to, that came by this address and whose person signed in."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        code = secrets.token_urlsafe(16)
        self._codes[code] = asked, {"aud": asked["client_id"], "nonce": asked["nonce"]} | claims
        answer = {"code": code, "state": asked["state"], "iss": self.url}
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def exchange(self, form: Mapping[str, str], authorization: str) -> tuple[dict[str, Any], int]:
        """Return the tokens for a code, once, or why there are none, and the status (RFC 6749, 5.2)."""
        wanted: tuple[str, str | None] = f"Basic {b64encode(f'{CLIENT}:{quote(self.secret)}'.encode()).decode()}", None
        if self.takes == "client_secret_post":
            wanted = "", self.secret
        if (authorization, form.get("client_secret")) != wanted or form.get("client_id") != CLIENT:
            return {"error": "invalid_client"}, 401
        asked, claims = self._codes.pop(form.get("code", ""), ({}, {}))
        challenge = urlsafe_b64encode(sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        if not asked or asked["code_challenge"] != challenge or asked["redirect_uri"] != form.get("redirect_uri"):
            return {"error": "invalid_grant"}, 400
        id_token = self.token(header={"typ": "JWT"}, **claims)
        given = {"token_type": "Bearer", "access_token": id_token}
        given |= {"scope": self.granted} if self.granted is not None else {}
        self._given.add(f"Bearer {id_token}")
        return given if self.omits_id_token else given | {"id_token": id_token}, 200

    def tell(self, authorization: str) -> tuple[dict[str, Any], int]:
        """Return what is known of whoever has an access token, and the status."""
        known = authorization in self._given and self.userinfo is not None
        return (self.userinfo or {}, 200) if known else ({"error": "invalid_token"}, 401)

    def documents(self) -> dict[str, Any]:
        keys = [*(key.as_dict(private=False) for key in self.keys), *self.more_keys]
        return {
            "/.well-known/openid-configuration": {
                "issuer": self.url,
                "jwks_uri": f"{self.url}/keys",
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "end_session_endpoint": f"{self.url}/end",
            }
            | ({} if self.userinfo is None else {"userinfo_endpoint": f"{self.url}/userinfo"})
            | self.odd,
            "/keys": {"keys": keys},
        }


def make_key(kid: str, algorithm: str) -> jwk.Key:
    about: Any = {"kid": kid, "use": "sig", "alg": algorithm}
    if algorithm in {"Ed25519", "EdDSA"}:
        return jwk.OKPKey.generate_key("Ed25519", about)
    return jwk.ECKey.generate_key("P-256", about) if algorithm == "ES256" else jwk.RSAKey.generate_key(2048, about)


def sign(header: dict[str, Any], claims: dict[str, Any] | bytes, key: Any) -> str:
    """Return a token with exactly this header and these claims."""
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return jws.serialize_compact(header, body, key, registry=_Anything(algorithms=[header["alg"]]))


class _Anything(JWSRegistry):
    def check_header(self, header: Any) -> None:
        """A test may put anything there."""

    def get_alg(self, name: str) -> Any:
        """Do not warn of the old name of Ed25519, which most issuers use."""
        return self.algorithms[name]


@asynccontextmanager
async def open_issuer() -> AsyncIterator[Issuer]:
    """Yield a running authorization server."""
    settings = PlatformSettings()
    with open_listener("127.0.0.1:0") as listener:
        listener.listen()
        issuer = Issuer(listener_url(listener))
        app = QuartTrio(__name__)

        async def answer(path: str) -> Response | tuple[str, int]:
            issuer.fetches += path == "keys"
            if issuer.away:
                return "", 503
            if path == "token":
                given, status = issuer.exchange(await request.form, request.headers.get("Authorization", ""))
                return Response(json.dumps(given), status)
            if path == "userinfo":
                given, status = issuer.tell(request.headers.get("Authorization", ""))
                return Response(json.dumps(given), status)
            document = issuer.documents().get(f"/{path}")
            return Response(json.dumps(document), headers=issuer.headers, content_type="application/json")

        app.add_url_rule("/<path:path>", "answer", answer, methods=["GET", "POST"])
        async with trio.open_nursery() as nursery:
            statistics, lifecycle = ServerStatistics(), Lifecycle()
            serving = partial(serve, app, listener, settings=settings, statistics=statistics, lifecycle=lifecycle)
            await nursery.start(partial(serving, shutdown=trio.sleep_forever))
            yield issuer
            nursery.cancel_scope.cancel()
