"""A request, a unit of work and a delivery cost no more lines of Python than the committed figures say."""

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio
from quart import Blueprint
from sqlalchemy import Connection, text

from service.platform.database import Statement
from service.platform.feature import Feature, Resources
from service.platform.http import Conversation, open_conversations, unlimited
from service.platform.identity import anyone
from service.platform.server import encode_frame, websocket
from service.platform.telemetry.logs import configure_logs
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from tests.platform.cost import check, grown, least

FIGURES = Path(__file__).with_name("costs.json")
MEMBERS = 20
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SAID = b"\x81\x85\x00\x00\x00\x00words"
HEARD = b"\x81\x05words"


SELECT_ONE = Statement("select_one", "SELECT 1")


def select_one(connection: Connection) -> int:
    found: int = connection.execute(text("SELECT 1")).scalar_one()
    return found


@asynccontextmanager
async def open_priced(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("priced", __name__)
    members: set[Conversation] = set()

    @routes.get("/small")
    @anyone
    @unlimited("a test's")
    async def small() -> dict[str, str]:
        return {"message": "hello"}

    @routes.get("/statement")
    @anyone
    @unlimited("a test's")
    async def statement() -> dict[str, int]:
        [(one,)] = await resources.database.execute(SELECT_ONE)
        return {"one": one}

    @routes.get("/reading")
    @anyone
    @unlimited("a test's")
    async def reading() -> dict[str, int]:
        [(one,)] = await resources.database.fetch(SELECT_ONE)
        return {"one": one}

    @routes.get("/unit")
    @anyone
    @unlimited("a test's")
    async def unit() -> dict[str, int]:
        return {"one": await resources.database.run(select_one)}

    async with open_conversations(resources, heartbeat=3_600) as conversations:

        @routes.websocket("/ws")
        @anyone
        @unlimited("a test's")
        async def room() -> None:
            await websocket.accept()
            conversation = Conversation(conversations)

            async def receive(_: trio.Nursery) -> None:
                members.add(conversation)
                while True:
                    frame = encode_frame(str(await conversation.socket.receive()))
                    for member in members:
                        member.send_frame(frame)

            await conversation.run(receive)

        yield routes


PRICED = Feature("priced", open=open_priced)


@pytest.fixture
async def port(make_settings: MakeSettings) -> AsyncIterator[int]:
    configure_logs("info", "json")
    quiet = {"slow_step": 0, "rate_per_address": 0, "rate_per_connection": 10_000}
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0", drain_delay=0, **quiet)
    async with booted(settings, [PRICED]) as urls:
        yield urlsplit(urls.public).port or 0


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def ask(client: socket.socket, line: str, status: int) -> None:
    """Send a request over a connection that is kept, and read the answer; it is short."""
    client.sendall(f"{line} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert client.recv(65_536).startswith(f"HTTP/1.1 {status} ".encode()), line


def cost_of(port: int, line: str, status: int) -> dict[str, int]:
    with connect(port) as client:
        return dict(least(partial(ask, client, line, status)))


def cost_of_delivery(port: int) -> dict[str, int]:
    with ExitStack() as stack:
        members = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30)) for _ in range(MEMBERS)
        ]
        for member in members:
            member.sendall(UPGRADE)
            assert b" 101 " in member.recv(65_536)

        def say() -> None:
            members[0].sendall(SAID)
            for member in members:
                assert member.recv(len(HEARD)) == HEARD

        return dict(least(say))


@pytest.mark.parametrize(
    ("name", "line", "status"),
    [
        pytest.param("/small", "GET /small", 200, id="a request"),
        pytest.param("/unit", "GET /unit", 200, id="a request with a unit"),
        pytest.param("/statement", "GET /statement", 200, id="a request with a statement"),
        pytest.param("/reading", "GET /reading", 200, id="a request with a statement that reads"),
        pytest.param("404", "GET /nowhere", 404, id="a path of nobody's"),
        pytest.param("405", "DELETE /small", 405, id="a method of nobody's"),
    ],
)
async def test_a_request_costs_what_it_did(port: int, name: str, line: str, status: int) -> None:
    check(FIGURES, name, await trio.to_thread.run_sync(cost_of, port, line, status))


async def test_a_message_to_twenty_members_costs_what_it_did(port: int) -> None:
    check(FIGURES, "/ws", await trio.to_thread.run_sync(cost_of_delivery, port))


def test_growth_is_found_and_named() -> None:
    before = {"service.platform.http.app": 300, "service.platform.server.guard": 100, "trio": 900}
    planted = before | {"service.platform.server.guard": 120}

    assert grown(before, planted) == ["the service: 400 lines to 420: service.platform.server.guard +20"]
    assert grown(before, before | {"trio": 920, "service.platform.server.guard": 104}) == []
    assert grown(before, before | {"quart": 60}) == ["packages: 900 lines to 960: quart +60"]
