"""The opening handshake as real proxies and other clients write it: lists in several lines, in any order and case."""

import pytest
import trio

from service.platform.server import Application, websocket
from tests.platform.server.conftest import running
from tests.platform.server.wire import Reader

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"


async def shake(app: Application, *lines: bytes, version: bytes = b"1.1") -> tuple[int, bytes]:
    async with running(app) as server, await server.connect() as client:
        await client.send_all(b"GET /ws HTTP/%b\r\nHost: x\r\n%b\r\n" % (version, b"".join(lines)))
        reader = Reader(client)
        head = await reader.until(b"\r\n\r\n")
    return int(head.split()[1]), head.lower()


@pytest.fixture
def talking(app: Application) -> Application:
    @app.websocket("/ws")
    async def ws() -> None:
        offered = websocket.requested_subprotocols
        await websocket.accept(subprotocol="two" if "two" in offered else None)
        await websocket.send(",".join(offered))
        await websocket.receive()

    return app


@pytest.mark.parametrize(
    "lines",
    [
        (UPGRADE,),
        (b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n",),
        (b"Connection: Upgrade\r\nConnection: keep-alive\r\nUpgrade: websocket\r\n",),
        (b"Connection: keep-alive\r\nConnection: UPGRADE\r\nUpgrade: WebSocket\r\n",),
        (b"Connection: upgrade , close-notify\r\nUpgrade: foo\r\nUpgrade: websocket\r\n",),
        (b"Connection: upgrade\r\nUpgrade: foo/1, websocket\r\n",),
    ],
    ids=repr,
)
async def test_lists_come_in_any_order_and_in_several_lines(talking: Application, lines: tuple[bytes, ...]) -> None:
    status, _ = await shake(talking, *lines, KEY, VERSION)

    assert status == 101


@pytest.mark.parametrize(
    "offer",
    [
        b"Sec-WebSocket-Protocol: one, two\r\n",
        b"Sec-WebSocket-Protocol: one\r\nSec-WebSocket-Protocol: two\r\n",
        b"Sec-WebSocket-Protocol: two\r\nsec-websocket-protocol: one\r\n",
    ],
    ids=repr,
)
async def test_subprotocols_are_one_list(talking: Application, offer: bytes) -> None:
    status, head = await shake(talking, UPGRADE, KEY, VERSION, offer)

    assert status == 101
    assert b"sec-websocket-protocol: two" in head


@pytest.mark.parametrize(
    ("offer", "read"),
    [
        (b"", []),
        (b"Sec-WebSocket-Protocol:\r\n", []),
        (b"Sec-WebSocket-Protocol: ,\t,\r\n", []),
        (b"Sec-WebSocket-Protocol: one,\r\n", ["one"]),
        (b"Sec-WebSocket-Protocol:\r\nSec-WebSocket-Protocol: ,one,,three\r\n", ["one", "three"]),
    ],
    ids=repr,
)
async def test_nothing_between_two_commas_is_no_subprotocol(app: Application, offer: bytes, read: list[str]) -> None:
    """RFC 9110, 5.6.1.2: a handler that looks for an offer would refuse it as one that it does not speak."""
    offers: list[list[str]] = []

    @app.websocket("/ws")
    async def ws() -> None:
        offers.append(websocket.requested_subprotocols)
        await websocket.accept()

    with trio.fail_after(5):
        status, _ = await shake(app, UPGRADE, KEY, VERSION, offer)

    assert (status, offers) == (101, [read])


@pytest.mark.parametrize("version", [b"12", b"", b"13, 8", b"1 3", b"014"])
async def test_a_refused_version_names_the_right_one(talking: Application, version: bytes) -> None:
    status, head = await shake(talking, UPGRADE, KEY, b"Sec-WebSocket-Version: " + version + b"\r\n")

    assert status == 426
    assert b"\r\nsec-websocket-version: 13\r\n" in head
    assert b"\r\nupgrade: websocket\r\nconnection: upgrade\r\n" in head
    assert b"\r\nconnection: close\r\n" in head


async def test_a_missing_version_names_the_right_one_too(talking: Application) -> None:
    assert (await shake(talking, UPGRADE, KEY))[0] == 426


@pytest.mark.parametrize(
    "keys",
    [
        b"",
        b"Sec-WebSocket-Key: \r\n",
        b"Sec-WebSocket-Key: short\r\n",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n",  # 15 bytes
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n",  # without its padding
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==x\r\n",
        b"Sec-WebSocket-Key: dGhl_HNhbXBsZSBub25jZQ==\r\n",
        KEY + KEY,
        KEY + b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
    ],
    ids=repr,
)
async def test_a_key_is_one_and_sixteen_bytes(talking: Application, keys: bytes) -> None:
    assert (await shake(talking, UPGRADE, keys, VERSION))[0] == 400


@pytest.mark.parametrize(
    "line",
    [
        b"Sec-WebSocket-Protocol: one, \xff",
        b"Sec-WebSocket-Extensions: \xc3\xa9",
        b"Connection: \xff",
        b"Upgrade: \xff",
    ],
)
async def test_a_list_that_holds_no_tokens_is_answered_400(talking: Application, line: bytes) -> None:
    status, _ = await shake(talking, UPGRADE, KEY, VERSION, line + b"\r\n")

    assert status == 400


@pytest.mark.parametrize("version", [b"1.2", b"1.9", b"2.0"])
async def test_a_version_beyond_ours_is_ours(talking: Application, version: bytes) -> None:
    """RFC 9110, 2.5: it is read as the highest that we know."""
    with trio.fail_after(5):
        status, head = await shake(talking, UPGRADE, KEY, VERSION, version=version)

    assert status == 101
    assert b"\r\nupgrade: websocket\r\n" in head
