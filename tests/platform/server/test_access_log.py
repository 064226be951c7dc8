"""D8: what is logged of a request and of a websocket, by us and by Hypercorn's access log."""

import logging

import pytest
from quart_trio import QuartTrio
from structlog.testing import capture_logs

from service.platform.http.app import surround
from service.platform.lifecycle import Lifecycle
from service.platform.server import Application, RateLimits, ServerStatistics
from tests.platform.server.child import make_settings
from tests.platform.server.conftest import Server, running, running_bare
from tests.platform.server.wire import CLOSE, TEXT, Reader, frame, get, upgrade


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


async def test_trap_the_access_log_has_two_lines_for_one_request_and_none_for_a_websockets_end(
    bare_app: QuartTrio, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    log = logging.getLogger("tests.access")
    async with running_bare(bare_app, accesslog=log, access_log_format="%(R)s %(s)s") as server:
        await use(server)

    lines = [record.getMessage() for record in caplog.records if record.name == log.name]
    assert lines == ["GET /?secret=1 1.1 -", "GET /?secret=1 1.1 200", "GET /echo 1.1 101"]
