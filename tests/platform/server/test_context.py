"""What Quart makes for each request is there when it is asked for, and who wants to be called is called."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from quart import (
    Blueprint,
    Response,
    after_this_request,
    copy_current_request_context,
    g,
    jsonify,
    request,
    request_finished,
    request_started,
    session,
    url_for,
)
from quart.typing import ResponseReturnValue, ResponseTypes

from service.platform.server import Application, Request
from tests.platform.server.conftest import running
from tests.platform.server.wire import Reader, get

type View = Callable[[], Awaitable[ResponseReturnValue]]


@asynccontextmanager
async def asking(app: Application) -> AsyncIterator[Callable[[bytes], Awaitable[tuple[int, bytes, bytes]]]]:
    async with running(app) as server, await server.connect() as client:
        reader = Reader(client)

        async def ask(data: bytes) -> tuple[int, bytes, bytes]:
            await client.send_all(data)
            return await reader.response()

        yield ask


async def answer(app: Application, view: View, path: str = "/it?a=b") -> tuple[int, bytes, bytes]:
    app.add_url_rule("/it", "it", view)
    async with asking(app) as ask:
        return await ask(get(path, headers=["X-A: b", "Cookie: c=d"]))


async def test_a_view_that_asks_for_nothing_is_answered_without_a_request_of_the_framework(app: Application) -> None:
    made: list[str] = []

    class Counted(Request):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            made.append("request")
            super().__init__(*args, **kwargs)

    app.request_class = Counted

    async def view() -> dict[str, int]:
        return {"b": 1, "a": 2}

    status, headers, body = await answer(app, view)

    assert (status, body) == (200, b'{"a":2,"b":1}\n')
    assert b"\r\ncontent-type: application/json\r\n" in headers
    assert made == []


async def test_the_request_is_as_the_framework_makes_it(app: Application) -> None:
    async def view() -> list[object]:
        g.seen = request.endpoint
        return [
            request.method,
            request.path,
            request.args["a"],
            request.headers["X-A"],
            request.cookies["c"],
            request.url_rule.rule if request.url_rule else None,
            request.view_args,
            request.url,
            g.seen,
            url_for("it"),
            dict(session),
        ]

    _, _, body = await answer(app, view)

    assert body == b'["GET","/it","b","b","d","/it",{},"http://x/it?a=b","it","/it",{}]\n'


async def test_urls_are_built_from_their_parts_and_the_rest_is_the_query(app: Application) -> None:
    @app.get("/shops/<shop>/orders/<int:number>")
    async def order(shop: str, number: int) -> dict[str, str]:
        return {}

    async def view() -> list[str]:
        return [url_for("order", shop="a b", number=7), url_for("order", shop="ö", number=8, page="2 3")]

    _, _, body = await answer(app, view)

    assert body == b'["/shops/a%20b/orders/7","/shops/%C3%B6/orders/8?page=2+3"]\n'


async def test_what_the_view_asks_to_do_with_the_response_is_done(app: Application) -> None:
    async def view() -> dict[str, str]:
        @after_this_request
        async def mark(response: ResponseTypes) -> ResponseTypes:
            response.headers["X-Marked"] = "yes"
            return response

        return {}

    _, headers, body = await answer(app, view)

    assert body == b"{}\n"
    assert b"\r\nx-marked: yes\r\n" in headers


async def test_hooks_and_signals_are_called_in_their_order(app: Application) -> None:
    called: list[str] = []
    routes = Blueprint("routes", __name__)

    @app.before_request
    async def before() -> None:
        called.append(f"before {request.path}")

    @routes.before_request
    async def before_routes() -> None:
        called.append("before routes")

    @routes.after_request
    async def after_routes(response: Response) -> Response:
        called.append("after routes")
        return response

    @app.teardown_request
    async def teardown(_: BaseException | None) -> None:
        called.append("teardown")

    @routes.get("/hooked")
    async def hooked() -> dict[str, str]:
        called.append("view")
        return {}

    async def started(*_: object, **__: object) -> None:
        called.append("started")

    async def finished(*_: object, **__: object) -> None:
        called.append("finished")

    app.register_blueprint(routes)
    with request_started.connected_to(started, app), request_finished.connected_to(finished, app):
        async with asking(app) as ask:
            await ask(get("/hooked"))

    assert called == ["started", "before /hooked", "before routes", "view", "after routes", "finished", "teardown"]


async def test_a_hook_that_answers_takes_the_place_of_the_view(app: Application) -> None:
    @app.before_request
    async def before() -> tuple[str, int]:
        return "no", 403

    async def view() -> dict[str, str]:
        return {}

    assert (await answer(app, view))[0] == 403


async def test_sessions_are_kept_once_there_is_a_key(app: Application) -> None:
    app.secret_key = "secret"

    async def view() -> dict[str, str]:
        session["a"] = "b"
        return {}

    _, headers, _ = await answer(app, view)

    assert b"\r\nset-cookie: session=" in headers


async def test_a_copied_context_has_the_same_request(app: Application) -> None:
    async def view() -> str:
        @copy_current_request_context
        async def path() -> str:
            return request.path

        return str(await path())

    assert (await answer(app, view))[2] == b"/it"


@pytest.mark.parametrize(
    "data",
    [
        get("/nowhere"),
        get("/it").replace(b"GET", b"PUT"),
        get("/it").replace(b"GET", b"get"),
        get("//it"),
        get("/i%74"),
    ],
)
async def test_a_path_or_method_is_refused_the_second_time_as_the_first(app: Application, data: bytes) -> None:
    async def view() -> str:
        return "here"

    app.add_url_rule("/it", "it", view)
    async with asking(app) as ask:
        first = (await ask(data))[0]
        assert (await ask(get("/it")))[0] == (await ask(get("/it")))[0] == 200
        second = (await ask(data))[0]

    assert first == second == {b"/nowhere": 404, b"//it": 404, b"/i%74": 200}.get(data.split()[1], 405)


async def test_a_route_that_is_added_later_is_found(app: Application) -> None:
    async def view() -> str:
        return "here"

    async with asking(app) as ask:
        before = (await ask(get("/later")))[0]
        app.add_url_rule("/later", "later", view)
        after = (await ask(get("/later")))[0]

    assert (before, after) == (404, 200)


async def test_documents_are_written_as_the_framework_writes_them(app: Application) -> None:
    value = {"b": "é", "a": [1, None, True, 1.5], "when": datetime(2026, 1, 2, tzinfo=UTC)}

    async def view() -> dict[str, object]:
        return value

    _, headers, body = await answer(app, view)
    async with app.app_context():
        usual = jsonify(value)

    assert body == await usual.get_data(as_text=False)
    assert f"\r\ncontent-type: {usual.content_type}\r\n".encode() in headers
