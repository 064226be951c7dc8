"""Who the client is behind proxies that we trust, and only behind them: `X-Forwarded-For` and `X-Forwarded-Proto`.

Anybody can write these headers. They count as far as addresses of our own proxies vouch for them, read from the
right: the first address that is not one of ours is the client.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

from service.platform.server.address import client_of, parse_address, parse_hop

# What `X-Forwarded-Proto` may say, in HTTP's words; for a websocket Traefik has words of its own.
_PROTOCOLS = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

type Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


def forwarded(app: ASGIFramework, trusted_proxies: Iterable[str]) -> ASGIFramework:
    """Wrap `app` so that `client` and `scheme` of its scopes are the client's; without proxies it is `app` itself."""
    networks = [ipaddress.ip_network(proxy) for proxy in trusted_proxies]
    if not networks:
        return app

    async def from_proxies(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "lifespan" and is_trusted(peer := client_of(scope), networks):
            hops = _values(scope["headers"], b"x-forwarded-for")
            scope["client"] = (client_address(peer, hops, networks), 0)
            protocols = _values(scope["headers"], b"x-forwarded-proto")
            if protocols and (said := _PROTOCOLS.get(protocols[-1].lower())):  # RFC 3986, 3.1: in any case
                scope["scheme"] = scheme_of(scope["type"], said)
        await app(scope, receive, send)

    return from_proxies


def client_address(peer: str, hops: Sequence[str], trusted: Networks) -> str:
    """Return the right-most untrusted address of `hops`; `peer`, which is trusted, is the hop after the last."""
    client = peer
    for hop in reversed(hops):
        address = parse_hop(hop)
        if address is None:
            break  # who wrote this is not to be trusted any further
        client = str(address)
        if not is_trusted(client, trusted):
            break
    return client


def is_trusted(address: str, trusted: Networks) -> bool:
    """Whether an address lies in one of the networks."""
    parsed = parse_address(address)
    return parsed is not None and any(parsed in network for network in trusted)


def scheme_of(kind: str, protocol: str) -> str:
    """Return the scope's scheme for what a proxy says of the client's connection."""
    return protocol if kind == "http" else {"http": "ws", "https": "wss"}[protocol]


def _values(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[str]:
    lines = (value.decode("latin1") for header, value in headers if header == name)
    return [value.strip() for line in lines for value in line.split(",") if value.strip()]
