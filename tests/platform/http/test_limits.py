"""How much a route lets through: what is declared is what holds, on real sockets."""

import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlsplit

import httpx2
import pytest
import trio
from quart import Blueprint, Response, request, websocket

from service.platform.errors import Unavailable
from service.platform.feature import Feature, Resources
from service.platform.http import limited, unlimited
from service.platform.http.limits import Limit, Places, limit_of
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.wire import UpgradeRefused, open_raw
from tests.platform.server.wire import Reader, get

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def open_limited(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("limits", __name__)
    goes_on = trio.Event()

    @routes.get("/rate")
    @anyone
    @limited(rate=1)
    async def rate() -> str:
        return ""

    @routes.get("/by-address")
    @anyone
    @limited()
    async def by_address() -> str:
        return ""

    @routes.post("/by-address")
    @anyone
    @limited()
    async def changed_by_address() -> str:
        return ""

    @routes.get("/free")
    @anyone
    @unlimited("a constant")
    async def free() -> str:
        return ""

    @routes.get("/slow")
    @anyone
    @limited(concurrency=2)
    async def slow() -> str:
        await goes_on.wait()
        return ""

    @routes.get("/parts")
    @anyone
    @limited(concurrency=1)
    async def parts() -> Response:
        async def each() -> AsyncIterator[str]:
            yield "first"
            await goes_on.wait()

        return Response(each())

    @routes.get("/go-on")
    @anyone
    @unlimited("a constant")
    async def go_on() -> str:
        goes_on.set()
        return ""

    @routes.post("/small")
    @anyone
    @limited(body=10)
    async def small() -> dict[str, int]:
        return {"bytes": len(await request.get_data())}

    @routes.websocket("/feed")
    @anyone
    @limited(rate=1, concurrency=1)
    async def feed() -> None:
        await websocket.accept()
        await websocket.send("hello")
        await websocket.receive()

    yield routes


LIMITED = Feature("limits", open=open_limited)


async def statuses(client: httpx2.AsyncClient, path: str, count: int) -> list[int]:
    return [(await client.get(path)).status_code for _ in range(count)]


async def test_a_rate_holds_for_its_route_and_an_address(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE, rate_per_address=1_000), [LIMITED]) as urls, Client(urls.public) as client:
        answers = await statuses(client, "/rate", 10)
        refused = await client.get("/rate")
        others = await statuses(client, "/by-address", 10) + await statuses(client, "/free", 10)

    assert answers[:2] == [200, 200]  # two seconds' worth
    assert refused.status_code == 429 or 429 in answers
    assert set(others) == {200}
    document = {"type": "about:blank", "title": "Too Many Requests", "status": 429}
    if refused.status_code == 429:
        assert document.items() <= refused.json().items()
        assert int(refused.headers["Retry-After"]) >= 1


async def test_what_is_refused_is_counted_for_its_route(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE, rate_per_address=0.01), [LIMITED]) as urls, Client(urls.public) as client:
        answers = await statuses(client, "/by-address", 2)
        async with httpx2.AsyncClient(base_url=urls.management) as operator:
            metrics = (await operator.get("/metrics")).text

    assert 429 in answers
    assert 'http_response_status_code="429",http_route="/by-address"' in metrics


async def test_what_counts_by_address_counts_together_with_all_that_changes_something(
    make_settings: MakeSettings,
) -> None:
    async with booted(make_settings(**FREE, rate_per_address=0.01), [LIMITED]) as urls, Client(urls.public) as client:
        posted = (await client.post("/by-address")).status_code
        answers = await statuses(client, "/by-address", 2)
        free = await statuses(client, "/free", 5) + await statuses(client, "/go-on", 1)
        otherwise_limited = await statuses(client, "/slow", 2)

    assert (posted, answers, free, otherwise_limited) == (200, [429, 429], [200] * 6, [200] * 2)


async def test_without_a_rate_per_address_no_rate_holds(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE, rate_per_address=0), [LIMITED]) as urls, Client(urls.public) as client:
        answers = await statuses(client, "/rate", 20) + await statuses(client, "/by-address", 20)

    assert set(answers) == {200}


async def test_so_many_at_once_and_no_more(make_settings: MakeSettings) -> None:
    slow: list[int] = []
    async with booted(make_settings(**FREE), [LIMITED]) as urls, AsyncExitStack() as stack:
        client = await stack.enter_async_context(Client(urls.public))

        async def ask() -> None:
            slow.append((await client.get("/slow")).status_code)

        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(ask)
            with trio.fail_after(30):
                while len(slow) < 3:
                    await trio.sleep(0.01)
            refused = list(slow)
            assert (await client.get("/go-on")).status_code == 200
        again = await statuses(client, "/slow", 3)

    assert refused == [503] * 3
    assert (sorted(slow), again) == ([200, 200, 503, 503, 503], [200] * 3)


async def test_an_answer_in_parts_has_its_place_until_its_end(make_settings: MakeSettings) -> None:
    with trio.fail_after(30):
        async with booted(make_settings(**FREE), [LIMITED]) as urls, Client(urls.public) as client:
            async with await trio.open_tcp_stream("127.0.0.1", urlsplit(urls.public).port or 0) as other:
                await other.send_all(get("/parts"))
                await Reader(other).until(b"first")
                full = await client.get("/parts")
            while (await statuses(client, "/go-on", 1), await statuses(client, "/parts", 1)) != ([200], [200]):
                await trio.sleep(0.01)  # until the service has seen that it was left
            again = await statuses(client, "/parts", 3)

    assert (full.status_code, full.json()["detail"], again) == (503, "too many ask for this at once", [200] * 3)


def test_a_place_that_is_left_is_one_and_no_more() -> None:
    places = Places(1)
    for _ in range(3):
        with places, pytest.raises(Unavailable, match="too many"):
            places.__enter__()


async def test_a_body_of_so_many_bytes_and_no_more(make_settings: MakeSettings) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"1"

    async with booted(make_settings(**FREE), [LIMITED]) as urls, Client(urls.public) as client:
        fits = await client.post("/small", content=b"1234567890", headers=JSON)
        told = await client.post("/small", content=b"12345678901", headers=JSON)
        untold = await client.post("/small", content=chunks(), headers=JSON)

    assert (fits.status_code, fits.json()) == (200, {"bytes": 10})
    assert (told.status_code, untold.status_code) == (413, 413)


async def test_websockets_are_limited_before_their_upgrade(make_settings: MakeSettings) -> None:
    async def upgrade() -> int:
        try:
            async with open_raw(urls.public, "/feed", protocol=""):
                return 101
        except UpgradeRefused as refused:
            return refused.status

    async with booted(make_settings(**FREE, rate_per_address=0), [LIMITED]) as urls:
        async with open_raw(urls.public, "/feed", protocol="") as first:
            await first.receive()
            full = await upgrade()
        with trio.fail_after(30):
            while await upgrade() != 101:
                await trio.sleep(0.01)
    async with booted(make_settings(**FREE, rate_per_address=1_000), [LIMITED]) as urls:
        often = [await upgrade() for _ in range(20)]

    assert full == 503
    assert 429 in often


async def test_the_document_says_it(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [LIMITED]) as urls, Client(urls.public) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]

    assert paths["/rate"]["get"]["x-limits"] == {"rate": 1}
    assert paths["/small"]["post"]["x-limits"] == {"body": 10}
    assert paths["/slow"]["get"]["x-limits"] == {"concurrency": 2}
    assert "x-limits" not in paths["/by-address"]["get"]
    assert [path for path in ("/rate", "/by-address", "/free") if "429" in paths[path]["get"]["responses"]] == [
        "/rate",
        "/by-address",
    ]


def test_a_route_says_once_and_with_a_reason_how_it_is_limited() -> None:
    async def view() -> None: ...

    assert limit_of(view) is None
    assert limit_of(limited(rate=0.5, body=7)(view)) == Limit(rate=0.5, body=7)
    for again in (limited(), unlimited("why")):
        with pytest.raises(ValueError, match="twice"):
            again(view)
    with pytest.raises(ValueError, match="why"):
        unlimited(" ")
    for given in ({"rate": 0.0}, {"rate": -1.0}, {"rate": math.nan}, {"rate": math.inf}, {"concurrency": 0}):
        with pytest.raises(ValueError, match="above 0"):
            limited(**given)
    for given in ({"concurrency": 1.5}, {"concurrency": 0.5}, {"body": 1.5}):
        with pytest.raises(ValueError, match="must be whole"):
            limited(**given)  # type: ignore[arg-type]  # as whoever checks no types may
    with pytest.raises(ValueError, match="at least"):
        limited(rate=1e-310)
