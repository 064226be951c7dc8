"""Error replies and the deadline, on a booted service with features that misbehave."""

import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
import trio
from quart import Blueprint, request

from service.platform.feature import Feature, Resources
from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from tests.platform.features import SLOW, STREAMING
from tests.platform.server.wire import Reader

# A request whose body has begun, and does not go on.
BEGUN = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n12"


async def get(make_settings: MakeSettings, path: str, **settings: float) -> httpx2.Response:
    binds = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
    async with booted(make_settings(**binds, **settings), [SLOW]) as urls, httpx2.AsyncClient() as client:
        return await client.get(urls.public + path, headers={"X-Request-Id": "abc"})


@pytest.mark.parametrize(
    ("path", "status", "detail"),
    [
        ("/refuse", 400, "seconds: must be a number"),
        ("/nowhere", 404, "nothing is served at this path"),
        ("/crash", 500, "an error of ours; it has been logged under this request_id"),
        ("/crash-group", 500, "an error of ours; it has been logged under this request_id"),
    ],
)
async def test_an_error_is_a_problem_document(make_settings: MakeSettings, path: str, status: int, detail: str) -> None:
    answer = await get(make_settings, path)
    document = answer.json()

    assert answer.status_code == document["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["detail"].startswith(detail)
    assert (document["instance"], document["request_id"]) == (path, "abc")
    assert answer.headers["x-request-id"] == "abc"
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text


async def test_a_request_over_its_deadline_is_answered_504(make_settings: MakeSettings) -> None:
    begun = time.monotonic()
    answer = await get(make_settings, "/slow?seconds=30", request_deadline=0.3)

    assert (answer.status_code, answer.headers["retry-after"]) == (504, "1")
    assert answer.json()["detail"] == "the request took longer than 0.3 seconds"
    assert time.monotonic() - begun < 10


async def test_a_request_leaves_a_thread_behind_at_its_deadline(make_settings: MakeSettings) -> None:
    release = threading.Event()

    @asynccontextmanager
    async def open_blocking(_: Resources) -> AsyncIterator[Blueprint]:
        routes = Blueprint("blocking", __name__)

        @routes.get("/blocking")
        @anyone
        @unlimited("a test's")
        async def blocking() -> str:
            await trio.to_thread.run_sync(release.wait, abandon_on_cancel=True)
            return "done"

        yield routes

    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0", request_deadline=0.3)
    try:
        with trio.fail_after(30):
            async with (
                booted(settings, [Feature("blocking", open=open_blocking)]) as urls,
                httpx2.AsyncClient() as client,
            ):
                answer = await client.get(f"{urls.public}/blocking")
    finally:
        release.set()

    assert answer.status_code == 504


async def test_a_body_still_awaited_at_the_deadline_is_its_clients_fault(make_settings: MakeSettings) -> None:
    """A 504 would let anybody who sends slowly look like a service that fails."""
    binds = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
    async with booted(make_settings(**binds, request_deadline=0.3), [STREAMING]) as urls:
        client = await trio.open_tcp_stream("127.0.0.1", int(urls.public.rpartition(":")[2]))
        async with client:
            await client.send_all(BEGUN)
            status, head, body = await Reader(client).response()

    assert (status, json.loads(body)["detail"]) == (408, "the body did not come in time")
    assert b"connection: close" in head.lower()


@asynccontextmanager
async def open_giving_up(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("giving_up", __name__)

    @routes.post("/read")
    @anyone
    @unlimited("a test's")
    async def read() -> str:
        with trio.move_on_after(0.05):
            await request.get_data()
        await trio.Event().wait()
        return ""

    yield routes


async def test_what_a_handler_does_once_it_waits_for_the_body_no_more_is_its_own_time(
    make_settings: MakeSettings,
) -> None:
    binds = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
    giving_up = Feature("giving_up", open=open_giving_up)
    async with (
        booted(make_settings(**binds, request_deadline=0.5), [giving_up]) as urls,
        await trio.open_tcp_stream("127.0.0.1", int(urls.public.rpartition(":")[2])) as client,
    ):
        await client.send_all(BEGUN)
        status, _, body = await Reader(client).response()

    assert (status, json.loads(body)["detail"]) == (504, "the request took longer than 0.5 seconds")


async def test_a_stream_may_opt_out_of_the_deadline(make_settings: MakeSettings) -> None:
    answer = await get(make_settings, "/stream?seconds=0.6", request_deadline=0.3)

    assert (answer.status_code, answer.text) == (200, "part\n" * 3)
