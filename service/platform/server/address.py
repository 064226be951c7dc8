"""Addresses as they come: from a socket, in a proxy's header, as a Host. Pure; whose they are is for others to say.

A listener on [::] shows IPv4 clients as ::ffff:192.0.2.1; everybody else means 192.0.2.1 by that, and so do we.
"""

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

_LABEL = "[A-Za-z0-9_~-]{1,63}"
_HOST = re.compile(rf"(?P<name>{_LABEL}(\.{_LABEL})*+\.?|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(:(?P<port>[0-9]{{1,5}}))?")
_MOST_PORT = 65_535
_IPV6_CLIENT = 64  # the prefix that one subscriber has, whatever address of it a request comes from


def parse_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a text is; None for anything else, a port behind it included.

    The zone of an IPv6 address is left out: it names an interface of this machine, and in a header it is anything.
    """
    address, _, _ = text.partition("%") if ":" in text else (text, "", "")
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def parse_hop(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address in `1.2.3.4`, `1.2.3.4:567`, `::1` or `[::1]:567`, as proxies write them; else None."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    return parse_address(text)


@lru_cache(maxsize=256)
def host_of(header: str) -> str | None:
    """Return the name or address in a Host, without the port, IPv6 in its brackets; None when it is no such thing."""
    found = _HOST.fullmatch(header)
    if found is None or int(found["port"] or 0) > _MOST_PORT:
        return None
    return found["name"] if found["ipv6"] is None or _is_ipv6(found["ipv6"]) else None


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def endpoint(name: object) -> tuple[str, int] | None:
    """Return address and port of what a socket is named; None when it has none, as of a socket in the file system."""
    match name:
        case (str(host), int(port), *_):
            return _as_meant(host), port
    return None


@lru_cache(maxsize=1024)
def _as_meant(host: str) -> str:
    return str(parse_address(host) or host)


def client_of(scope: Mapping[str, Any]) -> str:
    """Return the address of a scope's client; empty when the server does not know it."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def subscriber(address: str) -> str:
    """Return what stands for a client where it is counted: its address, or the /64 that an IPv6 address is in."""
    parsed = parse_address(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((int(parsed), _IPV6_CLIENT), strict=False))
    return address if parsed is None else str(parsed)
