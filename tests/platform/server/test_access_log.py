"""D8: what is logged of a request, a websocket and a connection, by us and by Hypercorn's access log."""

import logging
from socket import SHUT_WR
from typing import Any

import pytest
import structlog
import trio
from quart_trio import QuartTrio
from structlog.testing import capture_logs

from service.platform.http import around
from service.platform.http.app import surround
from service.platform.lifecycle import Lifecycle
from service.platform.server import Application, RateLimits, ServerStatistics, encode_frame, websocket
from tests.platform.server.child import make_settings
from tests.platform.server.conftest import Server, running, running_bare
from tests.platform.server.wire import CLOSE, TEXT, UPGRADE, Reader, frame, get, stalled, upgrade


async def use(server: Server) -> None:
    """Ask once, and hold a conversation once."""
    async with await server.connect() as client:
        await client.send_all(get("/?secret=1"))
        await Reader(client).response()
    async with await server.connect() as client:
        reader = await upgrade(client)
        await client.send_all(frame(TEXT, b"x") + frame(CLOSE, b"\x03\xe8"))
        await reader.close_code()
        await reader.rest()


async def test_a_request_has_a_line_and_a_websocket_has_one_at_each_end(safe_app: Application) -> None:
    settings, lifecycle, statistics = make_settings(), Lifecycle(), ServerStatistics()
    app = surround(safe_app, settings, lifecycle=lifecycle, statistics=statistics, limits=RateLimits(0))
    with capture_logs() as lines:
        async with running(app, settings) as server:
            await use(server)

    assert [line["event"] for line in lines] == ["request", "websocket opened", "websocket closed"]
    assert "secret" not in repr(lines)


OLD_HANDSHAKE = UPGRADE.replace(b"Version: 13", b"Version: 8") % (b"/echo", b"")


@pytest.mark.parametrize(
    ("sent", "changes", "status"),
    [
        (b"\x16\x03\x01 hello, in TLS\r\n\r\n", {}, 400),
        (get("/", headers=[f"Cookie: {'x' * 20_000}"]), {}, 431),
        (OLD_HANDSHAKE, {}, 426),
        (b"GET / HT", {"header_timeout": 0.1}, 408),
    ],
    ids=["400", "431", "426", "408"],
)
async def test_what_cannot_be_read_has_a_line_that_says_who_sent_it(
    safe_app: Application, sent: bytes, changes: dict[str, Any], status: int
) -> None:
    with capture_logs() as lines:
        async with running(safe_app, make_settings(**changes)) as server, await server.connect() as client:
            await client.send_all(sent)
            answered, _, _ = await Reader(client).response()

    assert answered == status
    assert lines == [{"event": "request refused", "log_level": "info", "status": status, "client": "127.0.0.1"}]


async def dropped(app: Any, settings: Any, request: bytes) -> Any:
    """Return the line of a client that asks and does not read."""
    with capture_logs() as lines:
        async with running(app, settings) as server, await stalled(server.port, request):
            with trio.fail_after(30):
                while not server.statistics.write_timeouts:
                    await trio.sleep(0.01)
    return next(line for line in lines if line["event"] == "connection dropped")


@pytest.mark.parametrize("gone", [False, True])
async def test_a_member_that_is_dropped_by_what_another_sends_is_told_under_its_own_id(
    app: Application, gone: bool
) -> None:
    """As `write timeout` by a task of its connection's, as `gone` by the task that sends."""
    members: list[Any] = []

    @app.websocket("/join")
    async def join() -> None:
        await websocket.accept()
        members.append(websocket.outbox)
        await trio.sleep_forever()

    @app.get("/broadcast")
    async def broadcast() -> str:
        [member] = members
        if gone:
            member.transport.stream.socket.shutdown(SHUT_WR)
        while not (server.statistics.dropped or member.transport.outbox.waiting_bytes):
            member.send_nowait(encode_frame("x" * 60_000))
        return "sent"

    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        async with running(around(app), make_settings(write_timeout=0.1)) as server:
            request = UPGRADE % (b"/join", b"X-Request-Id: member\r\n")
            async with await stalled(server.port, request), await server.connect() as sender:
                while not members:  # noqa: ASYNC110  of another task
                    await trio.sleep(0.01)
                await sender.send_all(get("/broadcast", headers=["X-Request-Id: sender"]))
                await Reader(sender).response()
                while not server.statistics.dropped:  # noqa: ASYNC110  of another task
                    await trio.sleep(0.01)

    told = [(line["reason"], line["request_id"]) for line in lines if line["event"] == "connection dropped"]
    assert told == [("gone" if gone else "write timeout", "member")]


async def test_a_connection_that_is_dropped_says_whose_it_was(safe_app: Application) -> None:
    line = await dropped(safe_app, make_settings(write_timeout=0.1), get("/big"))

    assert (line["reason"], line["client"]) == ("write timeout", "127.0.0.1")


@pytest.mark.parametrize("request_", [get("/big"), UPGRADE % (b"/pump", b"")], ids=["request", "websocket"])
async def test_behind_a_proxy_it_is_the_address_that_the_request_came_from(
    safe_app: Application, request_: bytes
) -> None:
    settings = make_settings(write_timeout=0.1, trusted_proxies=("127.0.0.1/32",))
    app = surround(safe_app, settings, lifecycle=Lifecycle(), statistics=ServerStatistics(), limits=RateLimits(0))
    named = request_.replace(b"Host: x\r\n", b"Host: x\r\nX-Forwarded-For: 203.0.113.7\r\n")

    assert (await dropped(app, settings, named))["client"] == "203.0.113.7"


async def test_trap_the_access_log_has_two_lines_for_one_request_and_none_for_a_websockets_end(
    bare_app: QuartTrio, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log = logging.getLogger("tests.access")
    async with running_bare(bare_app, accesslog=log, access_log_format="%(R)s %(s)s") as server:
        await use(server)

    lines = [record.getMessage() for record in caplog.records if record.name == log.name]
    assert lines == ["GET /?secret=1 1.1 -", "GET /?secret=1 1.1 200", "GET /echo 1.1 101"]
