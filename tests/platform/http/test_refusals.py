"""Errors are answered without the framework's response where nobody sees it, and are the same answers."""

import json
from collections.abc import Iterable
from typing import Any

import pytest
from quart import Blueprint, Response, request, websocket
from werkzeug.exceptions import NotFound

from service.platform.errors import Busy, ServiceError
from service.platform.http import unlimited
from service.platform.http.app import create_app
from service.platform.http.bodies import JsonRequest
from service.platform.identity import anyone
from service.platform.server import Application
from service.platform.testing.fixtures import MakeSettings
from tests.platform.server.conftest import running
from tests.platform.server.wire import UPGRADE, Reader, get


def create_routes() -> Blueprint:
    routes = Blueprint("refusals", __name__)

    @routes.get("/busy")
    @anyone
    @unlimited("a test's")
    async def busy() -> str:
        raise Busy("all are in use", retry_after=3)

    @routes.get("/folder/")
    @anyone
    @unlimited("a test's")
    async def folder() -> str:
        return "here"

    @routes.websocket("/feed")
    @anyone
    @unlimited("a test's")
    async def feed() -> None:
        await websocket.accept()

    return routes


async def answers(app: Application, requests: Iterable[bytes]) -> list[tuple[int, set[bytes], bytes]]:
    """Return status, headers but for the date, and body of each answer."""
    found = []
    async with running(app) as server, await server.connect() as client:
        reader = Reader(client)
        for request in requests:
            await client.send_all(request)
            status, headers, body = await reader.response()
            lines = {line.strip() for line in headers.lower().split(b"\r\n") if line.strip()}
            found.append((status, {line for line in lines if not line.startswith((b"date:", b"http/"))}, body))
    return found


POST = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
UNMATCHED = {
    get("/nowhere"): 404,
    get("/folder/nowhere?a=b"): 404,
    get("/busy").replace(b"GET", b"PUT"): 405,
    get("/busy").replace(b"GET", b"INVENTED"): 405,
    POST % b"/nowhere": 404,
    POST % b"/busy": 405,
}
REQUESTS = [get("/busy"), get("/nowhere"), get("/busy").replace(b"GET", b"PUT"), get("/folder"), get("/busy?a=b")]


async def test_who_sees_responses_sees_the_same_as_is_sent_without_them(make_settings: MakeSettings) -> None:
    seen: list[int] = []
    plain = create_app([create_routes()], make_settings())
    watched = create_app([create_routes()], make_settings())

    @watched.after_request
    async def watch(response: Response) -> Response:
        seen.append(response.status_code)
        return response

    without, with_hook = await answers(plain, REQUESTS), await answers(watched, REQUESTS)

    assert without == with_hook
    assert [status for status, _, _ in without] == seen == [503, 404, 405, 308, 503]
    assert b"retry-after: 3" in without[0][1]
    assert b"allow: get, head, options" in without[2][1]


async def test_who_is_refused_for_want_of_a_route_is_told_the_same_as_a_handler_sees(
    make_settings: MakeSettings,
) -> None:
    seen: list[int] = []
    plain = create_app([create_routes()], make_settings())
    routes = create_routes()

    @routes.after_app_request
    async def watch(response: Response) -> Response:
        seen.append(response.status_code)
        return response

    watched = create_app([routes], make_settings())
    requests = [*UNMATCHED, *UNMATCHED]  # the second time from what is kept of the first

    without, with_hook = await answers(plain, requests), await answers(watched, requests)

    assert without == with_hook
    assert [status for status, _, _ in without] == seen == [*UNMATCHED.values()] * 2


async def test_what_is_not_there_and_what_may_not_be_done_is_told_in_our_words(make_settings: MakeSettings) -> None:
    requests = [get("/nowhere"), *(get("/busy").replace(b"GET", method) for method in (b"PUT", b"get", b"X" * 300))]

    found = await answers(create_app([create_routes()], make_settings()), requests)

    assert [json.loads(body)["detail"] for _, _, body in found] == [
        "nothing is served at this path",
        "the method must be one of GET, HEAD, OPTIONS, not 'PUT'",
        "the method must be one of GET, HEAD, OPTIONS, not 'get'",
        f"the method must be one of GET, HEAD, OPTIONS, not '{'X' * 100}…'",
    ]


async def test_who_takes_a_websocket_for_a_request_or_the_reverse_is_told_which_it_is(
    make_settings: MakeSettings,
) -> None:
    no_upgrade = UPGRADE.replace(b"Connection: Upgrade\r\n", b"")  # as behind a proxy that does not hand it on
    requests = [get("/feed"), no_upgrade % (b"/feed", b""), UPGRADE % (b"/busy", b"")]

    found = await answers(create_app([create_routes()], make_settings()), requests)

    told = "a websocket is opened here, by an upgrade; a proxy in front has to hand on Upgrade and Connection"
    assert [(status, json.loads(body)["detail"]) for status, _, body in found] == [
        (400, told),
        (400, told),
        (400, "no websocket is opened here"),
    ]


@pytest.mark.parametrize("kind", [ServiceError, Busy])
async def test_a_features_own_handler_is_asked_first(make_settings: MakeSettings, kind: type[ServiceError]) -> None:
    routes = create_routes()

    @routes.errorhandler(kind)
    async def handle(_: ServiceError) -> tuple[str, int]:
        return "own words", 418

    ((status, _, body),) = await answers(create_app([routes], make_settings()), REQUESTS[:1])

    assert (status, body) == (418, b"own words")


@pytest.mark.parametrize("kind", [404, NotFound])
async def test_a_features_own_handler_is_asked_of_a_path_of_nobodys(
    make_settings: MakeSettings, kind: int | type[NotFound]
) -> None:
    routes = create_routes()

    @routes.app_errorhandler(kind)
    async def handle(_: NotFound) -> tuple[str, int]:
        return f"nothing at {request.path}", 418

    ((status, _, body),) = await answers(create_app([routes], make_settings()), [get("/nowhere")])

    assert (status, body) == (418, b"nothing at /nowhere")


async def test_a_features_hook_is_called_for_a_path_of_nobodys(make_settings: MakeSettings) -> None:
    routes = create_routes()

    @routes.before_app_request
    async def before() -> tuple[str, int]:
        return "not yet", 503

    found = await answers(create_app([routes], make_settings()), UNMATCHED)

    assert [(status, body) for status, _, body in found] == [(503, b"not yet")] * len(UNMATCHED)


async def test_a_path_of_nobodys_is_refused_without_the_framework(make_settings: MakeSettings) -> None:
    made: list[str] = []
    app = create_app([create_routes()], make_settings())

    class Counted(JsonRequest):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append("request")
            super().__init__(*args, **kwargs)

    app.request_class = Counted
    await answers(app, UNMATCHED)

    assert made == []
