"""What `service check` says of the identity provider: whether it answers, and whether what it has fits the settings."""

import time

import trio

from service.platform.calls import open_client
from service.platform.identity.browsers import CALLBACK
from service.platform.identity.keys import FETCH_TIMEOUT, ProviderAway
from service.platform.identity.provider import Provider
from service.platform.settings import PlatformSettings, SettingsError
from service.platform.verbs.finding import Finding


async def ask_provider(settings: PlatformSettings, issuer: str) -> list[Finding]:
    """Return what was found of the provider, of its keys, and of signing in."""
    try:
        return await _ask_provider(settings, issuer)
    except SettingsError as error:
        return [Finding("identity", str(error), failed=True)]


async def _ask_provider(settings: PlatformSettings, issuer: str) -> list[Finding]:
    async with open_client() as client:
        provider = Provider(client, issuer, settings.auth_jwks_url)
        found = [await keys(provider, settings, issuer), Finding("audience", f"{settings.auth_audience}")]
        if settings.auth_client_id is None:
            return [*found, Finding("sign-in", "off for browsers: SERVICE_AUTH_CLIENT_ID is not set")]
        return [*found, await sign_in(provider, settings), redirect(settings)]


async def keys(provider: Provider, settings: PlatformSettings, issuer: str) -> Finding:
    started = time.monotonic()
    try:
        with trio.fail_after(FETCH_TIMEOUT):
            fetched = (await provider.fetch_keys()).keys
    except (ProviderAway, trio.TooSlowError) as error:
        why = str(error) or f"{issuer} gives no answer within {FETCH_TIMEOUT:g} seconds"
        return Finding("identity", why, "is SERVICE_AUTH_ISSUER right, and within reach from here?", failed=True)
    usable = [key for key in fetched.values() if key.algorithms & set(settings.auth_algorithms)]
    took = (time.monotonic() - started) * 1000
    seen = f"{issuer} answers after {took:.0f} ms, and has {len(usable)} of {len(fetched)} keys for tokens"
    if usable:
        return Finding("identity", seen)
    theirs = ", ".join(sorted({name for key in fetched.values() for name in key.algorithms}))
    return Finding("identity", seen, f"SERVICE_AUTH_ALGORITHMS needs one of theirs: {theirs}", failed=True)


async def sign_in(provider: Provider, settings: PlatformSettings) -> Finding:
    """Return whether the provider knows of signing in with a browser; the secret itself only a sign-in tries."""
    kind = "public, without a secret" if settings.auth_client_secret is None else "with its secret"
    try:
        with trio.fail_after(FETCH_TIMEOUT):
            where = await provider.endpoint("authorization_endpoint")
            await provider.endpoint("token_endpoint")
    except (ProviderAway, trio.TooSlowError) as error:
        return Finding("sign-in", str(error) or "no answer", "browsers cannot sign in until it answers", failed=True)
    if provider.says("require_pushed_authorization_requests") is True:
        why = f"{where} takes pushed authorization requests alone (PAR)"
        return Finding("sign-in", why, "browsers cannot sign in until it takes others too", failed=True)
    return Finding("sign-in", f"at {where} as {settings.auth_client_id}, {kind}")


def redirect(settings: PlatformSettings) -> Finding:
    """Return the addresses that the provider must know; which scheme browsers use is what a proxy says."""
    hosts = settings.allowed_hosts or ("each host that people use",)
    seen = ", ".join(
        f"https://{host}{CALLBACK}" if settings.allowed_hosts else f"{CALLBACK} at {host}" for host in hosts
    )
    alone = "SERVICE_TRUSTED_PROXIES is empty: behind a proxy with TLS it begins with http, and the provider refuses it"
    return Finding("redirect", seen, "" if settings.trusted_proxies else alone)
