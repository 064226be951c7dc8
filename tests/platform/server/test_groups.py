"""D4: what a request answers, and what is logged, when several of its tasks fail together."""

import logging
from collections.abc import Awaitable, Callable

import pytest
import trio
from quart import abort
from quart_trio import QuartTrio

from service.platform.errors import NotFound
from service.platform.server import Application
from tests.platform.server.conftest import running, running_bare
from tests.platform.server.wire import Reader, get


async def not_found() -> None:
    abort(404)


async def no_such_thing() -> None:
    raise NotFound("no such thing")


async def fail() -> None:
    raise RuntimeError("meant")


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
