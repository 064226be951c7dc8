"""Bodies that come part by part: whatever a view iterates over, and an error ahead of the first part."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
import trio
from quart import Response, request
from quart.wrappers.response import DataBody, IOBody, IterableBody, ResponseBody
from quart_trio import QuartTrio
from quart_trio.wrappers import TrioResponse
from quart_trio.wrappers.response import TrioFileBody

from service.platform.errors import Unavailable
from service.platform.server import Application
from tests.platform.server.conftest import running
from tests.platform.server.wire import Reader, get

HERE = Path(__file__)


class Countdown(AsyncIterator[bytes]):
    """An async iterator that is no generator, as what a library hands out."""

    def __init__(self) -> None:
        self._left = [b"b", b"a"]

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def letters() -> Iterator[bytes]:
    yield b"a"
    yield b"b"


async def texts() -> AsyncIterator[str]:
    yield "a"
    yield "b"


@pytest.mark.parametrize("status", [204, 304])
async def test_a_response_without_a_body_is_one(app: Application, status: int) -> None:
    assert await ask(app, lambda: Response(status=status)) == (status, b"")


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize(
    "make", [lambda status: ({}, status), lambda status: ("", status), lambda status: Response(b"a", status)]
)
async def test_an_answer_that_has_no_body_tells_no_length_of_one(
    app: Application, make: Callable[[int], Any], status: int
) -> None:
    """RFC 9110, 8.6: of a 204 a strict proxy takes it for a broken answer, of a 304 for that of what a cache keeps."""

    @app.get("/")
    async def view() -> Any:
        return make(status)

    async with running(app) as server, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.get("/")

    assert (answer.status_code, answer.content, answer.headers.get("content-length")) == (status, b"", None)


@pytest.mark.parametrize("make", [lambda: [b"a", b"b"], letters, texts, Countdown])
async def test_the_body_of_a_response_may_be_anything_to_iterate_over(
    app: Application, make: Callable[[], Any]
) -> None:
    assert await ask(app, lambda: Response(make())) == (200, b"ab")


@pytest.mark.parametrize("length", ["1", "5"])
async def test_a_body_of_another_length_than_its_view_says_is_a_500(
    app: Application, caplog: pytest.LogCaptureFixture, length: str
) -> None:
    """As where the headers of another service's answer are copied, whose body was compressed."""
    assert (await ask(app, lambda: (b"abc", 200, {"Content-Length": length})))[0] == 500

    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
        "Exception on request GET /it"
    ]


@pytest.mark.parametrize("make", [lambda: b"ab", letters])
async def test_an_answer_has_one_date_whatever_its_view_copies(app: Application, make: Callable[[], Any]) -> None:
    """RFC 9110, 5.3: a field that is no list comes once. A view may hand on what another service has answered."""

    @app.get("/")
    async def view() -> Any:
        return make(), 200, {"Date": "Tue, 01 Dec 2020 04:43:35 GMT"}

    async with running(app) as server, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.get("/")

    assert (answer.content, len(dates := answer.headers.get_list("date"))) == (b"ab", 1)
    assert "2020" not in dates[0]


async def test_to_a_head_a_view_may_tell_the_length_of_what_it_has_not_made(app: Application) -> None:
    @app.get("/")
    async def view() -> tuple[bytes, int, dict[str, str]]:
        return b"", 200, {"Content-Length": "5000"}

    async with running(app) as server, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.head("/")

    assert (answer.status_code, answer.headers["content-length"]) == (200, "5000")


@pytest.mark.parametrize("make", [letters, texts])
async def test_a_view_may_return_what_is_iterated_over(app: Application, make: Callable[[], Any]) -> None:
    assert await ask(app, make) == (200, b"ab")


async def test_a_response_may_be_a_file(app: Application) -> None:
    assert await ask(app, lambda: Response(Response.file_body_class(HERE))) == (200, HERE.read_bytes())


@dataclass(frozen=True)
class Asked:
    range: str
    status: int
    told: str | None
    body: bytes | None


RANGES = (
    Asked("bytes=2-4", 206, "bytes 2-4/10", b"234"),
    Asked("bytes=7-", 206, "bytes 7-9/10", b"789"),
    Asked("bytes=8-500", 206, "bytes 8-9/10", b"89"),
    Asked("bytes=-3", 206, "bytes 7-9/10", b"789"),
    Asked("bytes=-500", 206, "bytes 0-9/10", b"0123456789"),
    Asked("bytes=10-", 416, None, None),
)


def as_file(path: Path) -> Response:
    response = Response()
    response.response = Response.file_body_class(path)
    return response


def as_buffer(path: Path) -> Response:
    response = Response()
    response.response = Response.io_body_class(BytesIO(path.read_bytes()))
    return response


def as_bytes(path: Path) -> Response:
    return Response(path.read_bytes())


def as_parts(path: Path) -> Response:
    return Response([path.read_bytes()[:5], path.read_bytes()[5:]])


@pytest.mark.parametrize("make", [as_bytes, as_parts, as_file, as_buffer])
@pytest.mark.parametrize("asked", RANGES, ids=lambda asked: asked.range)
async def test_a_part_of_a_body_may_be_asked_for_from_its_end_and_beyond_it(
    app: Application, tmp_path: Path, make: Callable[[Path], Response], asked: Asked
) -> None:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")

    @app.get("/")
    async def view() -> Response:
        response = make(path)
        await response.make_conditional(request, accept_ranges=True, complete_length=10)
        return response

    async with running(app) as server, httpx2.AsyncClient(headers={"Range": asked.range}) as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}/")

    assert (answer.status_code, answer.headers.get("content-range")) == (asked.status, asked.told)
    assert asked.body is None or answer.content == asked.body


async def test_a_head_of_a_body_without_an_end_has_one(app: Application) -> None:
    closed = trio.Event()

    async def endless() -> AsyncIterator[str]:
        try:
            while True:
                yield "more"
                await trio.lowlevel.checkpoint()
        finally:
            closed.set()

    @app.get("/endless")
    async def view() -> AsyncIterator[str]:
        return endless()

    @app.get("/next")
    async def after() -> str:
        return "next"

    async with running(app) as server, await server.connect() as client:
        reader = Reader(client)
        await client.send_all(get("/endless").replace(b"GET", b"HEAD"))
        head = await reader.until(b"\r\n\r\n")
        await client.send_all(get("/next"))
        with trio.fail_after(10):
            status, _, body = await reader.response()

    assert head.startswith(b"HTTP/1.1 200")
    assert (status, body) == (200, b"next")
    assert closed.is_set()


async def test_what_fails_ahead_of_its_first_part_is_answered(app: Application) -> None:
    closed: list[bool] = []

    async def failing() -> AsyncIterator[bytes]:
        try:
            refuse()
            yield b""
        finally:
            closed.append(True)

    @app.errorhandler(Unavailable)
    async def told(error: Unavailable) -> tuple[str, int]:
        return str(error), error.status

    assert await ask(app, lambda: Response(failing())) == (503, b"gone for now")
    assert closed == [True]


async def test_what_fails_behind_its_first_part_is_cut_short(app: Application) -> None:
    async def failing() -> AsyncIterator[bytes]:
        yield b"begun"
        refuse()

    with pytest.RaisesGroup(pytest.RaisesExc(httpx2.RemoteProtocolError, match="incomplete")):
        await ask(app, lambda: Response(failing()))


async def test_what_fails_as_its_body_is_closed_is_cut_short(app: Application) -> None:
    """As what was to be sent may have ended early for that."""

    class Failing(ResponseBody):
        async def __aenter__(self) -> AsyncIterator[str]:
            return texts()

        async def __aexit__(self, *_: object) -> None:
            refuse()

    with pytest.RaisesGroup(pytest.RaisesExc(httpx2.RemoteProtocolError, match="incomplete")):
        await ask(app, lambda: Response(Failing()))


@pytest.mark.parametrize("begun", [True, False])
async def test_a_body_is_closed_when_its_client_leaves(
    app: Application, caplog: pytest.LogCaptureFixture, *, begun: bool
) -> None:
    """Behind its first part, and while that is waited for."""
    waiting, closed = trio.Event(), trio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            if begun:
                yield b"begun"
            waiting.set()
            await trio.sleep_forever()
        finally:
            closed.set()

    @app.get("/it")
    async def view() -> Response:
        return Response(endless())

    async with running(app) as server:
        async with await server.connect() as client:
            await client.send_all(get("/it"))
            await waiting.wait()
        await closed.wait()

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_trap_quarts_own_bodies_want_a_loop_of_asyncio() -> None:
    """On a thread of its own: here another test's browser may have left one."""
    with ThreadPoolExecutor(1) as pool, pytest.raises(RuntimeError, match="no running event loop"):
        pool.submit(trio.run, joined, IterableBody([])).result()


async def test_trap_quart_trios_body_takes_no_async_class() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        await joined(TrioResponse.iterable_body_class(cast(Any, Countdown())))


async def test_trap_the_bodies_of_both_do_not_know_their_ends(tmp_path: Path) -> None:
    path = tmp_path / "digits"
    path.write_bytes(b"0123456789")
    data, buffer, file = DataBody(path.read_bytes()), IOBody(BytesIO(path.read_bytes())), TrioFileBody(path)

    await data.make_conditional(-3, None)
    await buffer.make_conditional(-3, None)
    await file.make_conditional(8, 500)

    assert (data.begin, buffer.begin, file.end) == (-3, -3, 500)


def refuse() -> None:
    raise Unavailable("gone for now")


async def joined(body: ResponseBody) -> bytes:
    async with body as parts:
        return b"".join([part async for part in parts])


async def ask(app: QuartTrio, make: Callable[[], Any]) -> tuple[int, bytes]:
    """Return the status and the whole body of what a view returns."""

    @app.get("/it")
    async def view() -> Any:
        return make()

    async with running(app) as server, httpx2.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}/it")
    return answer.status_code, answer.content
