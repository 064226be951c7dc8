"""What a browser is told about pages of other origins, on a booted service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from quart import Blueprint, Response

from service.platform.feature import Feature, Resources
from service.platform.http import limited, unlimited
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings

LISTED, OTHER = "https://shop.example", "https://evil.example"
ASKING = {"Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization,content-type"}
ALLOWED, VARY = "access-control-allow-origin", "vary"


@asynccontextmanager
async def open_shelf(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("shelf", __name__)

    @routes.put("/shelf")
    @anyone
    @limited(rate=1)  # of which a burst has two
    async def fill() -> Response:
        return Response("filled", headers={"X-Shelf": "1"})

    @routes.get("/own", provide_automatic_options=False)
    @anyone
    @unlimited("a test's")
    async def own() -> Response:
        return Response("", headers={"Access-Control-Allow-Origin": "https://own.example", "Vary": "Accept"})

    @routes.route("/own", methods=["OPTIONS"])
    @anyone
    @limited(rate=0.01)  # one, and the next in a hundred seconds
    async def allow() -> Response:
        told = {"Access-Control-Allow-Origin": LISTED, "Access-Control-Allow-Credentials": "true"}
        return Response("as the feature says", headers=told)

    yield routes


@asynccontextmanager
async def asking(make_settings: MakeSettings, allowed: str) -> AsyncIterator[httpx2.AsyncClient]:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0", allowed_origins=allowed)
    async with (
        booted(settings, [Feature("shelf", open=open_shelf)]) as urls,
        httpx2.AsyncClient(base_url=urls.public) as client,
    ):
        yield client


@pytest.mark.parametrize("path", ["/shelf", "/nowhere", "/openapi.json"])
async def test_a_page_of_a_listed_origin_may_ask_whatever_the_path(make_settings: MakeSettings, path: str) -> None:
    async with asking(make_settings, LISTED) as client:
        answer = await client.options(path, headers={"Origin": LISTED, **ASKING})

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers[ALLOWED] == LISTED
    assert answer.headers["access-control-allow-methods"] == "*"
    assert answer.headers["access-control-allow-headers"] == "Authorization, *"
    assert "access-control-allow-credentials" not in answer.headers
    assert "Origin" in answer.headers[VARY]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/shelf", None, 200),
        ("GET", "/openapi.json", None, 200),
        ("GET", "/nowhere", None, 404),
        ("GET", "/shelf", None, 405),
        ("PUT", "/shelf", b"text", 415),
    ],
)
async def test_it_may_read_each_answer_and_its_headers(
    make_settings: MakeSettings, method: str, path: str, body: bytes | None, status: int
) -> None:
    async with asking(make_settings, LISTED) as client:
        answer = await client.request(method, path, content=body, headers={"Origin": LISTED})

    assert (answer.status_code, answer.headers[ALLOWED]) == (status, LISTED)
    assert answer.headers["access-control-expose-headers"] == "*"
    assert "access-control-allow-credentials" not in answer.headers
    assert "x-request-id" in answer.headers


@pytest.mark.parametrize("origin", [OTHER, "null", "", None])
async def test_nobody_else_may_and_a_cache_is_told_that_it_depends(
    make_settings: MakeSettings, origin: str | None
) -> None:
    given = {} if origin is None else {"Origin": origin}
    async with asking(make_settings, LISTED) as client:
        document = await client.get("/openapi.json", headers=given)
        asked = await client.options("/shelf", headers={**given, **ASKING})

    assert (document.status_code, document.headers[VARY]) == (200, "Origin")
    assert not [name for name in (*document.headers, *asked.headers) if name.startswith("access-control-")]


async def test_without_origins_nothing_is_said(make_settings: MakeSettings) -> None:
    async with asking(make_settings, "") as client:
        asked = await client.options("/shelf", headers={"Origin": LISTED, **ASKING})
        answer = await client.get("/openapi.json", headers={"Origin": LISTED})

    assert (asked.status_code, answer.status_code) == (200, 200)
    assert not [name for name in (*asked.headers, *answer.headers) if name == VARY or name.startswith("access-")]


async def test_what_a_feature_says_itself_stands(make_settings: MakeSettings) -> None:
    async with asking(make_settings, LISTED) as client:
        asked = await client.options("/own", headers={"Origin": LISTED, **ASKING})
        answer = await client.get("/own", headers={"Origin": LISTED})

    assert (asked.status_code, asked.text) == (200, "as the feature says")
    assert asked.headers.get_list(ALLOWED) == [LISTED]
    assert asked.headers["access-control-allow-credentials"] == "true"
    assert answer.headers.get_list(ALLOWED) == ["https://own.example"]
    assert answer.headers.get_list(VARY, split_commas=True) == ["Accept", "Origin"]


async def test_asking_first_is_not_of_the_routes_rate(make_settings: MakeSettings) -> None:
    async with asking(make_settings, LISTED) as client:
        for _ in range(4):
            await client.options("/shelf", headers={"Origin": LISTED, **ASKING})
        answer = await client.put("/shelf", headers={"Origin": LISTED})

    assert answer.status_code == 200


async def test_a_view_of_a_feature_s_own_for_it_is_of_its_rate(make_settings: MakeSettings) -> None:
    async with asking(make_settings, LISTED) as client:
        answers = [await client.options("/own", headers={"Origin": LISTED}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 429]


async def test_asking_first_keeps_no_connection_that_has_to_end(make_settings: MakeSettings) -> None:
    async with asking(make_settings, LISTED) as client:
        answer = await client.options("/%ff", headers={"Origin": LISTED, **ASKING})

    assert (answer.status_code, answer.headers.get("connection")) == (204, "close")


async def test_options_that_is_no_such_question_is_answered_as_ever(make_settings: MakeSettings) -> None:
    async with asking(make_settings, LISTED) as client:
        answer = await client.options("/shelf", headers={"Origin": LISTED})

    assert (answer.status_code, answer.headers["allow"]) == (200, "OPTIONS, PUT")
    assert answer.headers[ALLOWED] == LISTED
