"""Who takes what a client sends: several tasks of a handler, and one that gave up waiting and comes again."""

from collections.abc import Awaitable, Callable

import pytest
import trio
import trio.testing
from quart import request
from werkzeug.exceptions import RequestTimeout

from service.platform.server import Application, Websocket, websocket
from tests.platform.server.conftest import running
from tests.platform.server.wire import TEXT, Reader, frame, upgrade


async def test_two_tasks_that_receive_share_the_messages(app: Application) -> None:
    got: list[str | bytes] = []
    messages = [f"{number}" for number in range(20)]

    @app.websocket("/ws")
    async def ws() -> None:
        await websocket.accept()
        socket: Websocket = websocket._get_current_object()  # type: ignore[attr-defined]  # the proxy is a task's own

        async def take_half() -> None:
            for _ in messages[::2]:
                got.append(await socket.receive())
                await socket.send("taken")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_half)
            nursery.start_soon(take_half)

    async with running(app) as server, await server.connect() as client:
        reader = await upgrade(client, "/ws")
        await trio.testing.wait_all_tasks_blocked(0.01)
        for message in messages:
            await client.send_all(frame(TEXT, message.encode()))
            await reader.frame()
        code = await reader.close_code()

    assert (got, code) == (messages, 1000)


async def whole() -> bytes:
    data: bytes = await request.get_data(cache=True, as_text=False, parse_form_data=False)
    return data


async def in_parts() -> bytes:
    return b"".join([part async for part in request.body])


@pytest.mark.parametrize("read", [whole, in_parts])
async def test_a_body_whose_reading_was_cancelled_is_read_whole_by_the_next(
    app: Application, read: Callable[[], Awaitable[bytes]]
) -> None:
    waiting, cancelled = trio.CancelScope(), trio.Event()

    @app.post("/body")
    async def body() -> bytes:
        with waiting:
            await request.get_data()
        cancelled.set()
        return await read()

    async with running(app) as server, await server.connect() as client:
        await client.send_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst")
        await trio.testing.wait_all_tasks_blocked(0.1)
        waiting.cancel()
        await cancelled.wait()
        await client.send_all(b"other")
        status, _, answer = await Reader(client).response()

    assert (status, answer) == (200, b"firstother")


@pytest.mark.parametrize("read_by_the_last", [whole, in_parts])
async def test_of_tasks_that_read_a_body_each_gets_the_whole_of_it(
    app: Application, read_by_the_last: Callable[[], Awaitable[bytes]]
) -> None:
    got: list[bytes] = []
    first, gone = trio.CancelScope(), trio.Event()

    @app.post("/body")
    async def body() -> bytes:
        async def give_up() -> None:
            with first:
                await whole()
            gone.set()

        async def read(how: Callable[[], Awaitable[bytes]]) -> None:
            got.append(await how())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(give_up)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(read, whole)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(read, read_by_the_last)
        return b"read"

    async with running(app) as server, await server.connect() as client:
        await client.send_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst")
        await trio.testing.wait_all_tasks_blocked(0.1)
        first.cancel()
        await gone.wait()
        await client.send_all(b"other")
        with trio.fail_after(5):
            status, _, answer = await Reader(client).response()

    assert (status, answer, got) == (200, b"read", [b"firstother"] * 2)


async def test_who_takes_parts_and_gives_up_waiting_beside_one_that_reads_the_whole_may_go_on(app: Application) -> None:
    waiting, gone = trio.CancelScope(), trio.Event()

    @app.post("/body")
    async def body() -> bytes:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(whole)
            await trio.testing.wait_all_tasks_blocked()
            parts = aiter(request.body)
            with waiting:
                await anext(parts)
            gone.set()
            return b"".join([part async for part in parts])

    async with running(app) as server, await server.connect() as client:
        await client.send_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst")
        await trio.testing.wait_all_tasks_blocked(0.1)
        waiting.cancel()
        await gone.wait()
        await client.send_all(b"other")
        with trio.fail_after(5):
            status, _, answer = await Reader(client).response()

    assert (status, answer) == (200, b"firstother")


async def test_a_body_that_is_late_is_late_for_each_task_that_reads_it(app: Application) -> None:
    refused: list[int] = []
    app.config["BODY_PATIENCE"] = 0.2

    @app.post("/body")
    async def body() -> bytes:
        async def read() -> None:
            with pytest.raises(RequestTimeout):
                await whole()
            refused.append(408)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            nursery.start_soon(read)
        return b"late"

    async with running(app) as server, await server.connect() as client:
        await client.send_all(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst")
        with trio.fail_after(5):
            status, _, answer = await Reader(client).response()

    assert (status, answer, refused) == (200, b"late", [408, 408])
