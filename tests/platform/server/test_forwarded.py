"""X-Forwarded-For and -Proto: believed behind trusted proxies, right-most untrusted hop, and never otherwise."""

from typing import Any

import pytest

from service.platform.server import forwarded
from service.platform.server.forwarded import MOST_HOPS
from tests.platform.cost import counted

TRUSTED = ("10.0.0.0/8", "fd00::/8")
CASES = [
    # peer, X-Forwarded-For lines, client
    ("10.0.0.1", [], "10.0.0.1"),
    ("10.0.0.1", ["192.0.2.1"], "192.0.2.1"),
    ("10.0.0.1", ["198.51.100.9, 192.0.2.1"], "192.0.2.1"),
    ("10.0.0.1", ["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
    ("10.0.0.1", ["192.0.2.1", "10.0.0.2, 10.0.0.3"], "192.0.2.1"),
    ("10.0.0.1", ["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
    ("10.0.0.1", ["192.0.2.1, nonsense, 10.0.0.2"], "10.0.0.2"),
    ("10.0.0.1", ["nonsense"], "10.0.0.1"),
    ("10.0.0.1", [" , "], "10.0.0.1"),
    ("10.0.0.1", ["192.0.2.1, ", ""], "192.0.2.1"),  # RFC 9110, 5.6.1: what is empty does not count
    ("10.0.0.1", ["192.0.2.1:1234"], "192.0.2.1"),
    ("10.0.0.1", ["[2001:db8::1]:1234"], "2001:db8::1"),
    ("fd00::1", ["2001:db8::1"], "2001:db8::1"),
    ("10.0.0.1", ["::ffff:192.0.2.1"], "192.0.2.1"),
    ("192.0.2.9", ["192.0.2.1"], "192.0.2.9"),
    ("192.0.2.9", ["10.0.0.1"], "192.0.2.9"),
]


async def scope_seen(scope: dict[str, Any], trusted: tuple[str, ...]) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:  # ASGI
        seen.update(scope)

    nothing: Any = None
    wrapped: Any = forwarded(app, trusted)
    await wrapped(
        {"type": "http", "scheme": "http", "client": ("10.0.0.1", 5), "headers": []} | scope, nothing, nothing
    )
    return seen


@pytest.mark.parametrize(("peer", "lines", "client"), CASES)
async def test_the_client_is_the_right_most_untrusted_hop(peer: str, lines: list[str], client: str) -> None:
    headers = [(b"x-forwarded-for", line.encode()) for line in lines]

    scope = await scope_seen({"client": (peer, 5), "headers": headers}, TRUSTED)

    assert scope["client"][0] == client


async def test_of_many_trusted_hops_so_many_are_read() -> None:
    lines = [*(f"192.0.2.1, 10.0.1.{number}" for number in range(MOST_HOPS)), ", ".join(["10.0.0.9"] * (MOST_HOPS - 1))]
    headers = [(b"x-forwarded-for", line.encode()) for line in lines]

    assert (await scope_seen({"headers": headers}, TRUSTED))["client"][0] == f"10.0.1.{MOST_HOPS - 1}"


@pytest.mark.parametrize("hop", [b"10.0.0.9", b"fd00::9", b"10.0.0.9:1", b"", b" ", b"\xa0", b"nonsense"])
async def test_a_header_costs_no_more_for_what_is_not_read_of_it(hop: bytes) -> None:
    async def cost(header: bytes) -> int:
        with counted() as lines:
            await scope_seen({"headers": [(b"x-forwarded-for", header), (b"x-forwarded-proto", header)]}, TRUSTED)
        return sum(number for file, number in lines.counts.items() if file.endswith(("forwarded.py", "ipaddress.py")))

    few, many = (b",".join([hop] * count) for count in (2 * MOST_HOPS, 16_000 // (len(hop) + 1)))
    await cost(many)

    assert await cost(many) <= await cost(few)


@pytest.mark.parametrize(
    ("kind", "peer", "protocol", "scheme"),
    [
        ("http", "10.0.0.1", b"https", "https"),
        ("websocket", "10.0.0.1", b"https", "wss"),
        ("http", "10.0.0.1", b"HTTPS", "https"),
        ("websocket", "10.0.0.1", b"wss", "wss"),  # Traefik's word for it
        ("websocket", "10.0.0.1", b"ws", "ws"),
        ("http", "10.0.0.1", b"wss", "https"),  # an upgrade that is none to us, such as a POST's
        ("http", "10.0.0.1", b"gopher", "http"),
        ("http", "192.0.2.1", b"https", "http"),
    ],
)
async def test_the_scheme_is_what_a_trusted_proxy_says(kind: str, peer: str, protocol: bytes, scheme: str) -> None:
    given = {"type": kind, "client": (peer, 5), "headers": [(b"x-forwarded-proto", protocol)]}

    assert (await scope_seen(given, TRUSTED))["scheme"] == scheme


async def test_no_other_header_says_who_the_client_is() -> None:
    others = [(b"x-real-ip", b"192.0.2.1"), (b"x-request-id", b"192.0.2.2"), (b"x-forwarded-host", b"https")]

    scope = await scope_seen({"headers": others}, TRUSTED)

    assert (scope["client"][0], scope["scheme"]) == ("10.0.0.1", "http")


async def test_without_trusted_proxies_nothing_is_believed() -> None:
    headers = [(b"x-forwarded-for", b"192.0.2.1"), (b"x-forwarded-proto", b"https")]

    scope = await scope_seen({"headers": headers}, ())

    assert scope["client"] == ("10.0.0.1", 5)
    assert scope["scheme"] == "http"
