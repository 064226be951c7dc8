"""Who the client is behind proxies that we trust, and only behind them: `X-Forwarded-For` and `X-Forwarded-Proto`.

Anybody can write these headers. They count as far as addresses of our own proxies vouch for them, read from the
right: the first address that is not one of ours is the client.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, Scope

from service.platform.server.address import client_of, parse_address, parse_hop

# What `X-Forwarded-Proto` may say, in HTTP's words; for a websocket Traefik has words of its own.
_PROTOCOLS = {"http": "http", "https": "https", "ws": "http", "wss": "https"}

# Addresses of our own proxies that are read: each is looked for in all networks, and no request passes more proxies.
MOST_HOPS = 32

type Networks = Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]


def forwarded(app: ASGIFramework, trusted_proxies: Iterable[str]) -> ASGIFramework:
    """Wrap `app` so that `client` and `scheme` of its scopes are the client's; without proxies it is `app` itself."""
    networks = [ipaddress.ip_network(proxy) for proxy in trusted_proxies]
    if not networks:
        return app

    async def from_proxies(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "lifespan" and is_trusted(peer := client_of(scope), networks):
            hops = _from_the_right(scope["headers"], b"x-forwarded-for")
            scope["client"] = (client_address(peer, hops, networks), 0)
            protocol = next(_from_the_right(scope["headers"], b"x-forwarded-proto"), "")
            if said := _PROTOCOLS.get(protocol.lower()):  # RFC 3986, 3.1: in any case
                scope["scheme"] = scheme_of(scope["type"], said)
        await app(scope, receive, send)

    return from_proxies


def client_address(peer: str, hops: Iterable[str], trusted: Networks) -> str:
    """Return the first untrusted address of `hops`, the nearest first; `peer`, which is trusted, comes before them.

    Where MOST_HOPS are all trusted, it is the last of those.
    """
    client = peer
    for hop in islice(hops, MOST_HOPS):
        address = parse_hop(hop)
        if address is None:
            break  # who wrote this is not to be trusted any further
        client = str(address)
        if not _is_in(address, trusted):
            break
    return client


def is_trusted(address: str, trusted: Networks) -> bool:
    """Whether an address lies in one of the networks."""
    parsed = parse_address(address)
    return parsed is not None and _is_in(parsed, trusted)


def _is_in(address: ipaddress.IPv4Address | ipaddress.IPv6Address, networks: Networks) -> bool:
    return any(address in network for network in networks)


def scheme_of(kind: str, protocol: str) -> str:
    """Return the scope's scheme for what a proxy says of the client's connection."""
    return protocol if kind == "http" else {"http": "ws", "https": "wss"}[protocol]


def _from_the_right(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> Iterator[str]:
    """Yield the values of a list's lines, the last first, and read no further than is asked for."""
    for line in reversed([value for header, value in headers if header == name]):
        rest = line
        while rest := rest.rstrip(b", \t"):  # RFC 9110, 5.6.1: what is empty does not count
            rest, _, value = rest.rpartition(b",")
            yield value.strip().decode("latin1")
