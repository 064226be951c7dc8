"""D4: what a request answers, and what is logged, when several of its tasks fail together."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import trio
from quart import abort
from quart_trio import QuartTrio

from service.platform.errors import NotFound
from service.platform.server import Application, websocket
from service.platform.testing.wire import Closed, open_raw
from tests.platform.server.conftest import running, running_bare
from tests.platform.server.wire import Reader, get


async def not_found() -> None:
    abort(404)


async def no_such_thing() -> None:
    raise NotFound("no such thing")


async def fail() -> None:
    raise RuntimeError("meant")


async def exit_() -> None:
    raise SystemExit("as argparse does")


async def exit_on_a_thread() -> None:
    await trio.to_thread.run_sync(sys.exit, "as argparse does")


async def end_a_loop_of_asyncio() -> None:
    async def cancel_itself() -> None:
        raise asyncio.CancelledError("not as argparse does")

    await trio.to_thread.run_sync(asyncio.run, cancel_itself())


def add_group(app: QuartTrio, *tasks: Callable[[], Awaitable[object]]) -> None:
    async def reply(error: NotFound) -> tuple[str, int]:
        return str(error), error.status

    @app.get("/nursery")
    async def nursery_of_tasks() -> str:
        async with trio.open_nursery() as nursery:
            for task in tasks:
                nursery.start_soon(task)
        return "never"

    app.register_error_handler(NotFound, reply)


@pytest.mark.parametrize(
    ("tasks", "status", "logged"),
    [
        ((not_found,), 404, []),
        ((no_such_thing,), 404, []),
        ((not_found, no_such_thing), 404, []),
        ((fail,), 500, ["meant"]),
        ((not_found, fail), 500, ["meant", "404 Not Found"]),
        ((fail, no_such_thing, trio.sleep_forever), 500, ["meant", "no such thing"]),
        ((exit_,), 500, ["as argparse does"]),
        ((exit_, fail), 500, ["as argparse does", "meant"]),
    ],
)
async def test_any_unexpected_error_in_a_group_is_a_500_and_is_logged_whole(
    app: Application,
    caplog: pytest.LogCaptureFixture,
    tasks: tuple[Callable[[], Awaitable[object]], ...],
    status: int,
    logged: list[str],
) -> None:
    add_group(app, *tasks)
    async with running(app) as server, await server.connect() as client:
        await client.send_all(get("/nursery"))
        assert (await Reader(client).response())[0] == status

    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(records) == bool(logged)
    assert all(words in caplog.text for words in logged)


@pytest.mark.parametrize("how", [exit_, exit_on_a_thread, end_a_loop_of_asyncio])
async def test_what_is_no_exception_is_a_failure_too_and_the_process_goes_on(
    app: Application, caplog: pytest.LogCaptureFixture, how: Callable[[], Awaitable[object]]
) -> None:
    """Libraries raise it at what a client sent, argparse for one."""

    @app.get("/")
    async def exits() -> str:
        await how()
        return "never"

    @app.websocket("/ws")
    async def exits_too() -> None:
        await websocket.accept()
        await how()

    @app.get("/stream")
    async def exits_late() -> AsyncIterator[bytes]:
        yield b"a"
        await how()

    async with running(app) as server:
        async with await server.connect() as client:
            await client.send_all(get("/stream"))
            while await client.receive_some():
                pass
        async with await server.connect() as client:
            await client.send_all(get("/"))
            assert (await Reader(client).response())[0] == 500
        async with open_raw(f"http://127.0.0.1:{server.port}", "/ws") as socket:
            with pytest.raises(Closed) as closed:
                await socket.receive()

    assert closed.value.code == 1011
    assert caplog.text.count("as argparse does") >= 3


async def test_a_cancelled_request_that_also_failed_is_logged(
    app: Application, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/")
    async def fail_when_cancelled() -> str:
        try:
            await trio.sleep_forever()
        finally:
            raise BaseExceptionGroup("both", [trio.Cancelled._create(source="unknown"), RuntimeError("while leaving")])

    async with running(app) as server:
        async with await server.connect() as client:
            await client.send_all(get("/"))
            await trio.sleep(0.05)
        with trio.fail_after(10):
            while server.statistics.connections_open:
                await trio.sleep(0.01)

    assert "while leaving" in caplog.text


async def test_trap_an_error_beside_a_404_is_lost_on_the_stack_as_it_comes(
    bare_app: QuartTrio, caplog: pytest.LogCaptureFixture
) -> None:
    add_group(bare_app, not_found, fail)
    async with running_bare(bare_app) as server, await server.connect() as client:
        await client.send_all(get("/nursery"))
        assert (await Reader(client).response())[0] == 404

    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
