"""Who may, in the words that OpenAPI and AsyncAPI share."""

from typing import Any

from service.platform.identity import May

SCHEME = "identity"  # the name of the one scheme in a document


def security_scheme(issuer: str) -> dict[str, Any]:
    """Return how to prove who one is: a token of the issuer."""
    return {
        "type": "openIdConnect",
        "openIdConnectUrl": f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        "description": "an access token of this issuer, as `Authorization: Bearer`",
    }


def security(may: May) -> list[dict[str, list[str]]]:
    """Return what a route needs."""
    return [{SCHEME: list(may.scopes)}]
