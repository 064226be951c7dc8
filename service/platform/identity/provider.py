"""The identity provider over HTTP: its discovery document and its public keys. Whatever goes wrong is ProviderAway.

What it sends is bounded in size and believed as far as TLS vouches for it: redirects are not followed.
"""

import json
import re
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx2

from service.platform.identity.keys import Fetched, ProviderAway
from service.platform.identity.public_keys import PublicKey, public_keys
from service.platform.settings import https_address

DISCOVERY = "/.well-known/openid-configuration"
MOST_BYTES = 1 << 18  # a document of keys has some thousand
_MAX_AGE = re.compile(r"(?:^|[,\s])max-age=([0-9]{1,9})(?:$|[,\s])")


@asynccontextmanager
async def open_client() -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client that trusts what the machine trusts (SSL_CERT_FILE), and takes HTTPS_PROXY into account.

    Reading the certificates takes the event loop some 30 ms; it is done here, before the first request can wait for it.
    """
    context = ssl.create_default_context()
    async with httpx2.AsyncClient(verify=context, timeout=httpx2.Timeout(5), follow_redirects=False) as client:
        yield client


class Provider:
    """One issuer."""

    def __init__(self, client: httpx2.AsyncClient, issuer: str, jwks_url: str | None) -> None:
        self._client = client
        self._issuer = issuer
        self._jwks_url = jwks_url

    async def fetch_keys(self) -> Fetched[PublicKey]:
        """Return the keys that may verify a token. Raises ProviderAway."""
        url = self._jwks_url or await self._discover("jwks_uri")
        document, headers = await self._get(url)
        keys = public_keys(document)
        if not keys:
            raise ProviderAway(f"{url} has no key that could verify a token")
        given = _MAX_AGE.search(headers.get("Cache-Control", "").lower())
        return Fetched(keys, float(given[1])) if given else Fetched(keys)

    async def _discover(self, endpoint: str) -> str:
        """Return an address that the discovery document has, which must be the issuer's own."""
        where = self._issuer.rstrip("/") + DISCOVERY
        document, _ = await self._get(where)
        if document.get("issuer") != self._issuer:
            raise ProviderAway(f"{where} is of the issuer {document.get('issuer')!r}, not {self._issuer!r}")
        url = document.get(endpoint)
        try:
            return https_address(str(url))
        except ValueError as error:
            raise ProviderAway(f"{where}: {endpoint} {error}") from error

    async def _get(self, url: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        try:
            async with self._client.stream("GET", url, headers={"Accept": "application/json"}) as response:
                if response.status_code != 200:
                    raise ProviderAway(f"{url} answers {response.status_code}")
                body = bytearray()
                async for part in response.aiter_bytes():
                    body += part
                    if len(body) > MOST_BYTES:
                        raise ProviderAway(f"{url} sends more than {MOST_BYTES} bytes")
            document = json.loads(body)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise ProviderAway(f"{urlsplit(url).netloc}: {type(error).__name__} {error}".rstrip()) from error
        except (ValueError, RecursionError) as error:
            raise ProviderAway(f"{url} sends no JSON") from error
        if not isinstance(document, dict):
            raise ProviderAway(f"{url} sends no JSON object")
        return document, response.headers
