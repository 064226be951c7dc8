"""Error replies and the deadline, on a booted service with features that misbehave."""

import json
import time

import httpx2
import pytest
import trio

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


async def test_a_stream_may_opt_out_of_the_deadline(make_settings: MakeSettings) -> None:
    answer = await get(make_settings, "/stream?seconds=0.6", request_deadline=0.3)

    assert (answer.status_code, answer.text) == (200, "part\n" * 3)
