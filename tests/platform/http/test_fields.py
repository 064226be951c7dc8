"""A query and a form have few fields, as each is taken apart in Python."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from quart import Blueprint, request, websocket

from service.platform.errors import Forbidden
from service.platform.feature import Feature, Resources
from service.platform.http import limited, takes
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MOST = "a&" * 999 + "a"


@asynccontextmanager
async def open_counting(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("counting", __name__)

    @routes.get("/query")
    @anyone
    @limited()
    async def query() -> dict[str, str]:
        return {"detail": f"{len(request.args.getlist('a'))} fields"}

    @routes.post("/form")
    @anyone
    @limited()
    @takes("application/x-www-form-urlencoded")
    async def form() -> dict[str, str]:
        return {"detail": f"{len((await request.form).getlist('a'))} fields"}

    @routes.websocket("/socket")
    @anyone
    @limited()
    async def socket() -> None:
        raise Forbidden(f"{len(websocket.args.getlist('a'))} fields")

    yield routes


COUNTING = Feature("counting", open=open_counting)


@pytest.mark.parametrize(
    ("path", "most", "more"),
    [
        ("/query", (200, "1000 fields"), (400, "query: must have at most 1000 fields, not 1001")),
        ("/socket", (403, "1000 fields"), (400, "query: must have at most 1000 fields, not 1001")),
        ("/form", (200, "1000 fields"), (413, "a form has at most 1000 fields")),
    ],
)
async def test_more_than_a_thousand_fields_are_refused(
    make_settings: MakeSettings, path: str, most: tuple[int, str], more: tuple[int, str]
) -> None:
    """As many as fit into a head took 15 ms of the event loop; of a form of 1 MiB half a second."""
    async with booted(make_settings(**FREE), [COUNTING]) as urls, Client(urls.public) as client:

        async def ask(fields: str) -> tuple[int, str]:
            if path == "/form":
                answer = await client.post(path, content=fields, headers=FORM)
            else:
                answer = await client.get(f"{path}?{fields}", headers=UPGRADE if path == "/socket" else {})
            return answer.status_code, answer.json()["detail"]

        answers = await ask(MOST), await ask(MOST + "&a")

    assert answers == (most, more)
