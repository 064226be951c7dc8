"""Addresses: one reading of them for sockets, proxies' headers, Hosts, limits and the operator's listener."""

import socket
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from service.platform.inside.management import may_inspect
from service.platform.server import RateLimits, host_of, parse_address
from service.platform.server.address import client_of, endpoint, parse_hop, subscriber
from service.platform.server.forwarded import forwarded, is_trusted
from tests.platform.server.conftest import running
from tests.platform.server.wire import Reader, get

NO_ADDRESS = ("", " ", "nonsense", "localhost", "1.2.3", "1.2.3.4.5", "127.1", "0x7f.0.0.1", "127.0.0.01",
              "1.2.3.4%eth0", "1.2.3.4:80", "[::1]", "::1]", "::ffff:1.2.3", "1.2.3.4/8", "/run/socket",
              "127.0.0.1\n")  # fmt: skip


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("0:0:0:0:0:FFFF:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
        ("::192.0.2.1", "::c000:201"),  # compatible and not mapped: no IPv4 client has that
    ],
)
def test_an_address_has_one_spelling(text: str, address: str) -> None:
    assert str(parse_address(text)) == address


@pytest.mark.parametrize("text", NO_ADDRESS)
def test_what_is_no_address_is_none(text: str) -> None:
    assert parse_address(text) is None
    assert not is_trusted(text, [])
    assert not may_inspect(text, "localhost")


@pytest.mark.parametrize(
    ("hop", "address"),
    [
        ("192.0.2.1:1234", "192.0.2.1"),
        ("[2001:db8::1]:1234", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[::ffff:192.0.2.1]:1", "192.0.2.1"),
        ("unknown", "None"),
        ("_hidden:80", "None"),
        ("", "None"),
    ],
)
def test_a_hop_may_have_a_port(hop: str, address: str) -> None:
    assert str(parse_hop(hop)) == address


@pytest.mark.parametrize(
    ("header", "host"),
    [
        ("localhost:9000", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]:9000", "[::1]"),
        ("::1", None),
        ("[::1]evil.example", None),
        ("[::1%25eth0]", None),
        ("127.0.0.1:80:90", None),
        ("127.0.0.1@evil.example", None),
        ("localhost evil", None),
        ("", None),
        ("orders_web:8000", "orders_web"),
        ("example.org.", "example.org."),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        ("[::ffff:192.0.2.1]", "[::ffff:192.0.2.1]"),
        ("a" * 64 + ".example", None),
        ("a..example", None),
        (".", None),
        ("localhost:65536", None),
        ("[::::]", None),
        ("[:.:]:80", None),
        ("[192.0.2.1]", None),
    ],
)
def test_a_host_is_a_name_and_a_port_at_most(header: str, host: str | None) -> None:
    assert host_of(header) == host
    if host is None:
        assert not may_inspect("127.0.0.1", header)


@pytest.mark.parametrize(
    ("peer", "allowed"),
    [
        ("127.0.0.1", True),
        ("127.255.255.254", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:7f00:1", True),
        ("::127.0.0.1", False),
        ("::2", False),
        ("fe80::1%lo", False),
        ("128.0.0.1", False),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104  nothing is bound
        ("::", False),
        ("", False),
        ("localhost", False),
    ],
)
def test_loopback_is_loopback_in_each_spelling_and_nothing_else(peer: str, allowed: bool) -> None:
    assert may_inspect(peer, "localhost") is allowed


def test_a_socket_without_an_address_has_no_client() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert endpoint(ours.getpeername()) is None
        assert endpoint(ours.getsockname()) is None
    assert client_of({"client": None}) == client_of({}) == ""


@pytest.mark.parametrize(
    ("bind", "connect", "client"),
    [
        (("::", socket.AF_INET6), ("127.0.0.1", socket.AF_INET), "127.0.0.1"),
        (("::", socket.AF_INET6), ("::1", socket.AF_INET6), "::1"),
        (("127.0.0.1", socket.AF_INET), ("127.0.0.1", socket.AF_INET), "127.0.0.1"),
    ],
)
def test_a_client_of_ipv4_has_the_same_address_on_any_listener(
    bind: tuple[str, socket.AddressFamily], connect: tuple[str, socket.AddressFamily], client: str
) -> None:
    with socket.socket(bind[1]) as listener, socket.socket(connect[1]) as caller:
        if bind[1] == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((bind[0], 0))
        listener.listen()
        caller.connect((connect[0], listener.getsockname()[1]))
        accepted, _ = listener.accept()
        with accepted:
            assert endpoint(accepted.getpeername()) == (client, caller.getsockname()[1])


async def test_who_is_counted_together(mock_clock: MockClock) -> None:
    assert subscriber("192.0.2.1") == subscriber("::ffff:192.0.2.1") == "192.0.2.1"
    assert subscriber("2001:db8::1") == subscriber("2001:db8::ffff%a") == "2001:db8::/64"
    assert subscriber("") == ""
    limits = RateLimits(1)
    assert [bool(limits.take(f"2001:db8::1%{zone}")) for zone in range(4)] == [False, False, True, True]


async def client_seen(client: Any, trusted: str, *hops: str) -> Any:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:  # ASGI
        seen.append(scope["client"])

    headers = [(b"x-forwarded-for", hop.encode()) for hop in hops]
    wrapped, nothing = forwarded(app, (trusted,)), None
    await wrapped({"type": "http", "scheme": "http", "client": client, "headers": headers}, nothing, nothing)  # type: ignore[arg-type]
    return seen[0]


@pytest.mark.parametrize("client", [None, ("", 0), ("/run/socket", 0), ("unknown", 0)])
async def test_who_has_no_address_is_no_trusted_proxy(client: Any) -> None:
    assert await client_seen(client, "0.0.0.0/0", "192.0.2.1") == client
    assert await client_seen(client, "::/0", "192.0.2.1") == client


async def test_a_mapped_network_is_no_way_around_and_none_into_trust() -> None:
    assert await client_seen(("10.0.0.1", 5), "10.0.0.0/8", "::ffff:192.0.2.1") == ("192.0.2.1", 0)
    assert await client_seen(("::ffff:10.0.0.1", 5), "10.0.0.0/8", "192.0.2.1") == ("192.0.2.1", 0)
    assert await client_seen(("10.0.0.1", 5), "::/0", "192.0.2.1") == ("10.0.0.1", 5), "IPv6 alone is trusted"
    assert await client_seen(("fe80::1%eth0", 5), "fe80::/10", "192.0.2.1") == ("192.0.2.1", 0)


async def test_a_request_over_a_socket_in_the_file_system_is_served_and_trusted_by_nobody(tmp_path: Path) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["client"], may_inspect(client_of(scope), "localhost")))
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "socket"))
    listener.setblocking(False)
    async with running(forwarded(app, ("0.0.0.0/0", "::/0")), listener=listener):
        client = await trio.open_unix_socket(str(tmp_path / "socket"))
        await client.send_all(get("/", headers=["X-Forwarded-For: 127.0.0.1", "Connection: close"]))
        status, _, _ = await Reader(client).response()
        await client.aclose()

    assert (status, seen) == (204, [(None, False)])
