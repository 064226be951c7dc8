"""What a request meets ahead of the framework, on real sockets."""

import gc
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from quart_trio import QuartTrio
from trio.testing import MockClock

from service.platform.lifecycle import Lifecycle
from service.platform.server import Application, RateLimits, ServerStatistics, guard
from tests.platform.server.child import add_routes, make_settings
from tests.platform.server.conftest import Server, running, running_bare
from tests.platform.server.wire import UPGRADE, Reader, get, upgrade


def counted_by_address() -> list[Any]:
    """Return what this process counts by the address of the tests; whoever has the list keeps them alive."""
    gc.collect()
    return [one for one in gc.get_objects() if type(one) is Counter and "127.0.0.1" in one]


PROBES = {"/livez": lambda: (200, b'{"status": "ok"}')}


@asynccontextmanager
async def guarded(app: Application, **changes: Any) -> AsyncIterator[tuple[Server, ServerStatistics, Lifecycle]]:
    settings = make_settings(**changes)
    statistics, lifecycle = ServerStatistics(), Lifecycle()
    wrapped = guard(
        app,
        settings=settings,
        lifecycle=lifecycle,
        statistics=statistics,
        limits=RateLimits(settings.rate_per_address),
        any_host={"/health"},
    )
    async with running(wrapped, settings, probes=PROBES) as server:
        yield server, statistics, lifecycle


async def ask(server: Server, request: bytes) -> tuple[int, bytes, bytes]:
    async with await server.connect() as client:
        await client.send_all(request)
        return await Reader(client).response()


async def test_beyond_max_requests_the_answer_is_503_at_once_and_probes_are_exempt(safe_app: Application) -> None:
    async with guarded(safe_app, max_requests=2) as (server, statistics, _), trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(ask, server, get("/slow/5.0"))
        while statistics.requests_in_flight < 2:
            await trio.sleep(0.01)

        status, head, body = await ask(server, get("/"))
        probe = await ask(server, get("/livez"))

        assert statistics.requests_in_flight == 2, "none of them had to end"
        nursery.cancel_scope.cancel()
    assert (status, probe[0]) == (503, 200)
    assert b"retry-after: 1\r\n" in head
    assert b"content-type: application/problem+json" in head
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "detail": "too many requests are in flight",
        "instance": "/",
    }
    assert statistics.refused == {"busy": 1}
    assert statistics.requests_in_flight == 0


@pytest.mark.parametrize(
    ("target", "detail"),
    [
        ("/slow/%ff", "path: must be UTF-8, the byte 0xff is not"),
        ("/slow/a%c3%28", "path: must be UTF-8, the byte 0xc3 is not"),
        ("/slow/0?a=%20%e9", "query: must be UTF-8, the byte 0xe9 is not"),
        ("/echo?a=%ED%A0%80", "query: must be UTF-8, the byte 0xed is not"),
    ],
)
async def test_what_is_no_text_in_a_path_or_a_query_is_refused_and_not_made_another_one(
    safe_app: Application, target: str, detail: str
) -> None:
    """Else /%fe and /%ff are one path to a route, and in a query %ff is the text `%FF`."""
    async with guarded(safe_app) as (server, statistics, _):
        answers = [await ask(server, request) for request in (get(target), UPGRADE % (target.encode(), b""))]
        taken = await ask(server, get("/?a=%e2%82%ac&b=%&c=%zz"))

    assert [(status, json.loads(body)["detail"]) for status, _, body in answers] == [(400, detail)] * 2
    assert statistics.refused == {"invalid": 2}
    assert taken[0] == 200


REFUSED = [
    # request, settings, status
    (get("/").replace(b"Host: x", b"Host: other"), {"allowed_hosts": ("x",)}, 421),
    (UPGRADE.replace(b"Host: x", b"Host: other") % (b"/echo", b""), {"allowed_hosts": ("x",)}, 421),
    (b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n", {}, 400),
    (b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {}, 400),
    (b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", {}, 415),
    (b"POST /read HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\n\r\n", {}, 403),
    (UPGRADE % (b"/echo", b"Origin: http://y\r\n"), {}, 403),
    (UPGRADE % (b"/echo", b"Origin: null\r\n"), {}, 403),
    (UPGRADE % (b"/echo", b""), {"max_websockets": 0}, 503),
    (b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 2097152\r\n\r\n", {}, 413),
]


@pytest.mark.parametrize(("request_", "changes", "status"), REFUSED)
async def test_who_does_not_get_in_is_told_why(request_: bytes, changes: dict[str, Any], status: int) -> None:
    app = add_routes(Application("guarded", settings=make_settings(**changes)))
    async with guarded(app, **changes) as (server, statistics, _):
        answer = await ask(server, request_)
        probe = await ask(server, get("/livez").replace(b"Host: x", b"Host: other"))

    assert answer[0] == status
    assert probe[0] == 200
    if status != 413:  # which is the framework's answer
        assert json.loads(answer[2])["status"] == status
        assert statistics.refused.total() == 1
    if status == 400:  # what follows on that connection may be what somebody has smuggled
        assert b"connection: close\r\n" in answer[1].lower()


async def test_health_and_probes_are_served_by_any_host_name(app: Application) -> None:
    @app.get("/health")
    async def health() -> str:
        return "ok"

    async with guarded(app, allowed_hosts=("y",)) as (server, _, _):
        assert [(await ask(server, get(path)))[0] for path in ("/health", "/livez", "/")] == [200, 200, 421]


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200),
        (get("/").replace(b"Host: x", b"Host: a b"), 200),
        (UPGRADE % (b"/echo", b"Origin: http://y\r\n"), 101),
    ],
)
async def test_trap_anybody_gets_in_on_the_stack_as_it_comes(bare_app: QuartTrio, request_: bytes, status: int) -> None:
    async with running_bare(bare_app) as server:
        assert (await ask(server, request_))[0] == status


async def test_the_origin_of_the_host_itself_is_let_in(safe_app: Application) -> None:
    async with guarded(safe_app) as (server, _, _), await server.connect() as client:
        await upgrade(client, "/echo", b"Origin: http://x\r\n")


async def test_a_full_house_is_503_and_a_seat_that_is_left_is_free(safe_app: Application) -> None:
    async with guarded(safe_app, max_websockets=1) as (server, _, _):
        async with await server.connect() as client:
            await upgrade(client)
            status, head, _ = await ask(server, UPGRADE % (b"/echo", b""))
            assert (status, b"retry-after: 1\r\n" in head) == (503, True)
        with trio.fail_after(10):
            while server.websockets.count:
                await trio.sleep(0.01)
        async with await server.connect() as client:
            await upgrade(client)


async def test_an_address_has_its_own_limit_of_websockets_and_is_forgotten(safe_app: Application) -> None:
    before = counted_by_address()
    async with guarded(safe_app, max_websockets_per_address=1) as (server, statistics, _):
        async with await server.connect() as client:
            await upgrade(client)
            assert (await ask(server, UPGRADE % (b"/echo", b"")))[0] == 503
            assert len(counted_by_address()) == len(before) + 1
        with trio.fail_after(10):
            while len(counted_by_address()) > len(before):  # or addresses that have gone would fill the memory
                await trio.sleep(0.01)
    assert statistics.refused == {"full house of address": 1}


async def test_posts_and_upgrades_of_an_address_are_limited_and_gets_and_probes_are_not(
    safe_app: Application, mock_clock: MockClock
) -> None:
    mock_clock.rate = 0.1  # or on a busy machine a second may be over before the third
    post = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    async with guarded(safe_app, rate_per_address=1) as (server, statistics, _):
        assert [(await ask(server, post))[0] for _ in range(2)] == [200, 200]
        status, head, _ = await ask(server, post)
        assert (status, b"retry-after: 1\r\n" in head) == (429, True)
        assert (await ask(server, UPGRADE % (b"/echo", b"")))[0] == 429
        assert {(await ask(server, get("/")))[0] for _ in range(5)} == {200}
        assert {(await ask(server, get("/livez")))[0] for _ in range(5)} == {200}
    assert statistics.refused == {"rate": 2}


async def test_while_leaving_new_websockets_are_503_and_requests_are_served_and_told_to_close(
    safe_app: Application,
) -> None:
    async with guarded(safe_app) as (server, _, lifecycle):
        assert b"connection: close" not in (await ask(server, get("/")))[1].lower()
        lifecycle.start_leaving()
        server.lifecycle.start_leaving()
        status, head, _ = await ask(server, UPGRADE % (b"/echo", b""))
        assert (status, b"retry-after: 1\r\n" in head) == (503, True)
        for path in ("/", "/livez", "/nowhere"):
            assert b"connection: close" in (await ask(server, get(path)))[1].lower()


EXPECTING = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Type: %b\r\nContent-Length: %d\r\nExpect: 100-continue\r\n\r\n"
JSON = b"application/json"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (EXPECTING % (b"/read", b"text/plain", 2), 415),
        (EXPECTING % (b"/read", JSON, 1 << 30), 413),
        (EXPECTING % (b"/nowhere", JSON, 2), 404),
        (EXPECTING.replace(b"Host: x", b"Host: bad host") % (b"/read", JSON, 2), 400),
    ],
)
async def test_who_is_refused_by_the_headers_is_not_asked_for_the_body(
    safe_app: Application, request_: bytes, status: int
) -> None:
    async with guarded(safe_app) as (server, *_):
        assert (await ask(server, request_))[0] == status


async def test_a_body_is_asked_for_once_somebody_wants_it(safe_app: Application) -> None:
    async with guarded(safe_app) as (server, *_), await server.connect() as client:
        reader = Reader(client)
        for _ in range(2):
            await client.send_all(EXPECTING % (b"/read", JSON, 2))
            assert (await reader.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
            await client.send_all(b"{}")
            status, _, body = await reader.response()
            assert (status, body) == (200, b"2")
