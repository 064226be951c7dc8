"""The identity provider over HTTP: its discovery document and its public keys. Whatever goes wrong is ProviderAway.

What it sends is bounded in size and believed as far as TLS vouches for it: redirects are not followed.
"""

import json
import re
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import structlog

from service.platform.identity.answer import error_code
from service.platform.identity.keys import Fetched, ProviderAway
from service.platform.identity.public_keys import PublicKey, public_keys
from service.platform.settings import https_address, variable

log = structlog.get_logger(__name__)

DISCOVERY = "/.well-known/openid-configuration"
MOST_BYTES = 1 << 18  # a document of keys has some thousand
IN_HEADER, IN_BODY = "client_secret_basic", "client_secret_post"  # how a client sends its secret
_LATER = frozenset({408, 425, 429})  # come again: the code was not looked at
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=([0-9]{1,9})(?:$|[,\s])")


class CodeRefused(Exception):
    """The provider does not take the code: it was used before, is too old, or was given to another client."""


class ClientRefused(CodeRefused):
    """The provider does not know this service by what the settings say."""


class Provider:
    """One issuer."""

    def __init__(self, client: httpx2.AsyncClient, issuer: str, jwks_url: str | None) -> None:
        self._client = client
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._discovered: dict[str, Any] = {}
        self._way = IN_HEADER

    async def fetch_keys(self) -> Fetched[PublicKey]:
        """Return the keys that may verify a token. Raises ProviderAway."""
        url = self._jwks_url or await self.endpoint("jwks_uri", anew=True)
        document, headers = await self._get(url)
        keys = public_keys(document)
        if not keys:
            raise ProviderAway(f"{url} has no key that could verify a token")
        given = _MAX_AGE.search(headers.get("Cache-Control", "").lower())
        return Fetched(keys, float(given[1])) if given else Fetched(keys)

    async def endpoint(self, name: str, *, anew: bool = False) -> str:
        """Return an address that the discovery document has, which must be the issuer's own. Raises ProviderAway.

        The document is that of the last time, unless it is to be fetched `anew`.
        """
        where = self._issuer.rstrip("/") + DISCOVERY
        if anew or not self._discovered:
            document, _ = await self._get(where)
            if document.get("issuer") != self._issuer:
                raise ProviderAway(f"{where} is of the issuer {document.get('issuer')!r}, not {self._issuer!r}")
            self._discovered = document
        url = self._discovered.get(name)
        try:
            return https_address(str(url))
        except ValueError as error:
            raise ProviderAway(f"{where}: {name} {error}") from error

    def says(self, name: str) -> Any:
        """Return what else the discovery document has, as it was fetched last; None for nothing."""
        return self._discovered.get(name)

    async def exchange(self, form: Mapping[str, str], *, client: str, secret: str | None) -> dict[str, Any]:
        """Return what the provider gives for a code. Raises ProviderAway, CodeRefused.

        A secret is sent in the other way too when the provider offers two and does not know the client by the first:
        for which one a client is registered it does not tell, and some do not decode what the header has encoded. A
        code is looked at only when the client is known, and so is still good.
        """
        url = await self.endpoint("token_endpoint")
        sent = dict(form) | {"grant_type": "authorization_code", "client_id": client}
        way, *others = self._ways() if secret else ("",)
        try:
            try:
                given = await self._exchange(url, sent, client, secret, way)
            except ClientRefused:
                if not others:
                    raise
                [way] = others
                given = await self._exchange(url, sent, client, secret, way)
        except ClientRefused as refused:
            log.warning("identity provider refuses this client", error=str(refused))
            raise
        self._way = way
        return given

    async def userinfo(self, token: str) -> dict[str, Any]:
        """Return what the provider tells whoever has an access token, nothing if it has no such endpoint.

        Raises ProviderAway.
        """
        if "userinfo_endpoint" not in self._discovered:
            return {}
        url = await self.endpoint("userinfo_endpoint")
        document, _ = await self._send("GET", url, headers={"Authorization": f"Bearer {token}"})
        return document

    def _ways(self) -> list[str]:
        """Return how the provider takes a secret, the way that was right the last time first."""
        offered = self._discovered.get("token_endpoint_auth_methods_supported")
        ways = [way for way in (IN_HEADER, IN_BODY) if isinstance(offered, list) and way in offered]
        return sorted(ways, key=lambda way: way != self._way) or [IN_HEADER]  # what it takes if it does not say

    async def _exchange(
        self, url: str, form: dict[str, str], client: str, secret: str | None, way: str
    ) -> dict[str, Any]:
        basic = None
        if secret and way == IN_BODY:
            form = form | {"client_secret": secret}
        elif secret:
            basic = httpx2.BasicAuth(quote(client, safe=""), quote(secret, safe=""))
        document, _ = await self._send("POST", url, form, auth=basic)
        return document

    async def _get(self, url: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        return await self._send("GET", url)

    async def _send(
        self,
        method: str,
        address: str,
        form: Mapping[str, Any] | None = None,
        *,
        auth: httpx2.Auth | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[dict[str, Any], Mapping[str, str]]:
        url = address.partition("?")[0]
        try:
            asked = {"Accept": "application/json"} | dict(headers or {})
            request = self._client.build_request(method, address, data=form, headers=asked)
            response = await self._client.send(request, stream=True, auth=auth)
            async with aclosing(response):
                refused = method == "POST" and 400 <= response.status_code < 500 and response.status_code not in _LATER
                if response.status_code != 200 and not refused:
                    raise ProviderAway(f"{url} answers {response.status_code}")
                body = bytearray()
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise ProviderAway(f"{url} sends more than {MOST_BYTES} bytes")
            if refused:
                raise refusal_of(response.status_code, bytes(body))
            document = json.loads(body)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ProviderAway(f"{urlsplit(url).netloc}: {type(error).__name__} {error}".rstrip()) from error
        except (ValueError, RecursionError) as error:
            raise ProviderAway(f"{url} sends no JSON") from error
        if not isinstance(document, dict):
            raise ProviderAway(f"{url} sends no JSON object")
        return document, response.headers


def refusal_of(status: int, body: bytes) -> CodeRefused:
    """Return what the endpoint for tokens says by a status from 400 to 499 and its error code (RFC 6749, 5.2)."""
    try:
        code = error_code(json.loads(body)["error"])
    except (ValueError, RecursionError, TypeError, KeyError):
        code = ""
    answered = f"the identity provider answers {status}{f' ({code})' if code else ''}"
    if status == 401 or code in {"invalid_client", "unauthorized_client"}:
        names = " and ".join(map(variable, ("auth_client_id", "auth_client_secret")))
        return ClientRefused(f"{answered}: {names} must be as it knows them")
    return CodeRefused(f"{answered} to the code, which is good once and for a short time; begin anew at /auth/sign-in")
