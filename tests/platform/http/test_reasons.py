"""Whoever reads the log is told why a request was refused: in its own line, by a word that the runbook explains."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pytest
import trio
from quart import Blueprint, Response, request, websocket
from quart_schema import validate_querystring
from structlog.testing import capture_logs

from service.platform.errors import Busy, Conflict, OutcomeUnknown, RateLimited, ServiceError
from service.platform.http import limited, unlimited
from service.platform.http.app import create_app, surround
from service.platform.http.requests import RequestObserver
from service.platform.identity import Unauthenticated, anyone
from service.platform.identity.caller import Flaw
from service.platform.lifecycle import Lifecycle
from service.platform.server import RateLimits, ServerStatistics
from tests.platform.server.child import make_settings
from tests.platform.server.conftest import Server, running
from tests.platform.server.wire import CLOSE, UPGRADE, Reader, frame, get, stalled, upgrade

SECRET = "hunter2"
RAISED = {
    "busy": Busy("all are in use"),
    "unknown": OutcomeUnknown("it may be committed or not"),
    "conflict": Conflict(SECRET),
    "idempotency": Conflict(SECRET, reason="idempotency"),
    "rate": RateLimited("too many", retry_after=3),
    "token": Unauthenticated("for somebody else", flaw=Flaw.AUDIENCE),
    "nobody": Unauthenticated("sign in first"),
    "group": ExceptionGroup("tasks", [Busy("all are in use")]),
    "crash": ZeroDivisionError(SECRET),
    "mixed": ExceptionGroup("tasks", [Busy("all are in use"), ZeroDivisionError(SECRET)]),
}
REASONS: dict[str, tuple[int, str | None]] = {
    "busy": (503, "database busy"),
    "unknown": (503, "outcome unknown"),
    "conflict": (409, "conflict"),
    "idempotency": (409, "idempotency"),
    "rate": (429, "rate"),
    "token": (401, "unauthenticated, audience"),
    "nobody": (401, "unauthenticated"),
    "group": (503, "database busy"),
    "crash": (500, "error"),
    "mixed": (500, "error"),
    "well": (200, None),
}


@dataclass
class Question:
    of: Literal["orders"]


def create_routes(asked: trio.Event) -> Blueprint:
    routes = Blueprint("reasons", __name__)

    @routes.route("/raise/<what>", methods=["GET", "POST"])
    @anyone
    @unlimited("a test's")
    async def raise_(what: str) -> str:
        if what in RAISED:
            raise RAISED[what]
        return "well"

    @routes.get("/stream/<what>")
    @anyone
    @unlimited("a test's")
    async def stream(what: str) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            if what in RAISED:
                raise RAISED[what]

        return Response(parts())

    @routes.get("/endless/<int:parts>")
    @anyone
    @unlimited("a test's")
    async def endless(parts: int) -> Response:
        async def each() -> AsyncIterator[bytes]:
            for _ in range(parts):
                yield b"begun" * 10_000
            await trio.sleep_forever()

        return Response(each())

    @routes.get("/of")
    @anyone
    @unlimited("a test's")
    @validate_querystring(Question)
    async def ask_of(query_args: Question) -> str:
        return query_args.of

    @routes.get("/slow")
    @anyone
    @limited(concurrency=1)
    async def slow() -> str:
        asked.set()
        await trio.Event().wait()
        return ""

    @routes.post("/body")
    @anyone
    @unlimited("a test's")
    async def body() -> str:
        asked.set()
        return str(await request.get_data())

    @routes.get("/rare")
    @anyone
    @limited(rate=1e-6)
    async def rare() -> str:
        return ""

    @routes.websocket("/echo")
    @anyone
    @unlimited("a test's")
    async def echo() -> None:
        await websocket.accept()
        await websocket.receive()

    @routes.websocket("/wait")
    @anyone
    @unlimited("a test's")
    async def wait() -> None:
        asked.set()
        await trio.sleep_forever()

    @routes.websocket("/raise/<when>")
    @anyone
    @unlimited("a test's")
    async def raise_in_websocket(when: str) -> None:
        if when == "after":
            await websocket.accept()
        raise Busy(SECRET)

    return routes


@asynccontextmanager
async def surrounded(
    lifecycle: Lifecycle,
    observe: RequestObserver = lambda *_: None,
    asked: trio.Event | None = None,
    **changes: Any,
) -> AsyncIterator[tuple[Server, list[Any]]]:
    """Yield a server of these routes, and the lines that it logs."""
    settings = make_settings(**changes)
    app = create_app([create_routes(trio.Event() if asked is None else asked)], settings)

    @app.errorhandler(RateLimited)
    async def be_kind(error: RateLimited) -> Response:
        return Response("slowly, please", error.status)

    limits, statistics = RateLimits(settings.rate_per_address), ServerStatistics()
    around = surround(app, settings, lifecycle=lifecycle, statistics=statistics, limits=limits, observe=observe)
    with capture_logs() as lines:
        async with running(around, settings) as server:
            yield server, lines


async def ask(server: Server, request: bytes) -> int:
    async with await server.connect() as client:
        await client.send_all(request)
        return (await Reader(client).response())[0]


def line_of(lines: list[Any]) -> tuple[Any, Any]:
    [line] = [line for line in lines if line["event"] in {"request", "websocket refused"}]
    return line["status"], line.get("reason")


@pytest.mark.parametrize("what", REASONS)
async def test_what_a_view_raises_gives_its_line_a_reason(what: str) -> None:
    async with surrounded(Lifecycle()) as (server, lines):
        status = await ask(server, get(f"/raise/{what}"))

    assert line_of(lines) == REASONS[what]
    assert status == REASONS[what][0]
    assert SECRET not in str([line for line in lines if line["event"] == "request"])


@pytest.mark.parametrize("what", REASONS)
async def test_what_ends_an_answer_in_the_middle_gives_its_line_a_reason_and_counts_as_what_it_is(what: str) -> None:
    """Its status has been sent: only the connection's end tells the client."""
    seen: list[tuple[str, str, str, float]] = []
    async with (
        surrounded(Lifecycle(), lambda *each: seen.append(each)) as (server, lines),
        await server.connect() as client,
    ):
        await client.send_all(get(f"/stream/{what}", headers=["Connection: close"]))
        raw = await Reader(client).rest()

    status, reason = REASONS[what]
    assert (line_of(lines), [each[2] for each in seen]) == ((200, reason and f"cut, {reason}"), [str(status)])
    assert b"begun" in raw
    assert raw.endswith(b"0\r\n\r\n") == (reason is None)
    errors = [line["event"] for line in lines if line["log_level"] == "error"]
    assert errors == (["unhandled error"] if reason == "error" else [])
    assert SECRET not in str([line for line in lines if line["event"] == "request"])


@pytest.mark.parametrize("leaves", [True, False])
async def test_an_answer_that_its_client_does_not_take_to_its_end_is_cut_by_the_client(*, leaves: bool) -> None:
    seen: list[tuple[str, str, str, float]] = []
    async with surrounded(Lifecycle(), lambda *each: seen.append(each), write_timeout=0.2) as (server, lines):
        if leaves:
            async with await server.connect() as client:
                await client.send_all(get("/endless/1"))
                await Reader(client).until(b"begun")
        else:
            client = await stalled(server.port, get("/endless/1000"))
        while not seen:  # noqa: ASYNC110  a log has no event
            await trio.sleep(0.01)
        await client.aclose()

    assert (line_of(lines), seen[0][2]) == ((200, "cut, client"), "200")
    assert not [line for line in lines if line["log_level"] == "error"]


async def test_an_answer_without_an_end_is_cut_by_a_replica_that_leaves() -> None:
    async with surrounded(Lifecycle(), graceful_timeout=0.1) as (server, lines), await server.connect() as client:
        await client.send_all(get("/endless/1"))
        await Reader(client).until(b"begun")
        server.stop.set()
        await server.stopped.wait()

    assert line_of(lines) == (200, "cut, leaving")


HALF = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\nhalf"


@pytest.mark.parametrize("sends", [get("/slow"), HALF, UPGRADE % (b"/wait", b"")])
async def test_a_request_that_a_replica_leaves_without_an_answer_is_told_to_come_again(sends: bytes) -> None:
    """It was an empty 500 to the client, and in the log a client who had gone."""
    asked = trio.Event()
    async with (
        surrounded(Lifecycle(), asked=asked, graceful_timeout=0.1) as (server, lines),
        await server.connect() as client,
    ):
        await client.send_all(sends)
        await asked.wait()
        server.stop.set()
        status, head, body = await Reader(client).response()
        await server.stopped.wait()

    assert (status, line_of(lines)) == (503, (503, "leaving"))
    assert b"\r\nretry-after: 1\r\n" in head.lower()
    assert json.loads(body)["request_id"].encode() in head


POST = b"POST /raise/well HTTP/1.1\r\nHost: x\r\n%bContent-Length: 0\r\n\r\n"
ECHO = UPGRADE % (b"/echo", b"")
REFUSED: list[tuple[bytes, dict[str, Any], tuple[int, str]]] = [
    (get("/raise/well"), {"max_requests": 0}, (503, "busy")),  # fewer than a setting may say
    (get("/raise/%ff"), {}, (400, "invalid")),
    (get("/raise/well"), {"allowed_hosts": ("y",)}, (421, "misdirected")),
    (POST % b"Origin: http://y\r\n", {}, (403, "forbidden")),
    (POST.replace(b"0\r\n\r\n", b"2\r\n\r\n{}") % b"Content-Type: text/plain\r\n", {}, (415, "unsupportedmedia")),
    (get("/of?of=SECRET"), {}, (400, "invalid")),
    (ECHO, {"allowed_hosts": ("y",)}, (421, "misdirected")),
    (ECHO, {"max_websockets": 0}, (503, "full house")),
    (UPGRADE % (b"/raise/before", b""), {}, (503, "database busy")),
    (get("/slow"), {"request_deadline": 0.1}, (504, "deadline")),
]


@pytest.mark.parametrize(("request_", "changes", "expected"), REFUSED, ids=[each[2][1] for each in REFUSED])
async def test_what_is_refused_on_the_way_to_a_view_has_a_reason(
    request_: bytes, changes: dict[str, Any], expected: tuple[int, str]
) -> None:
    async with surrounded(Lifecycle(), **changes) as (server, lines):
        status = await ask(server, request_)

    assert line_of(lines) == expected
    assert status == expected[0]


async def test_what_becomes_of_a_page_asking_first_is_no_refusal() -> None:
    asking = (
        get("/nowhere")
        .replace(b"GET", b"OPTIONS")
        .replace(b"\r\n\r\n", b"\r\nOrigin: http://y\r\nAccess-Control-Request-Method: PUT\r\n\r\n")
    )
    async with surrounded(Lifecycle(), max_requests=0, allowed_origins=("http://y",)) as (server, lines):
        status = await ask(server, asking)

    assert line_of(lines) == (204, None)
    assert status == 204


@pytest.mark.parametrize(
    ("request_", "changes", "expected"),
    [
        (POST % b"", {"rate_per_address": 0.000_1}, (429, "rate")),
        (ECHO, {"rate_per_address": 0.000_1}, (429, "rate")),
        (get("/rare"), {}, (429, "route rate")),
        (ECHO, {"max_websockets_per_address": 1}, (503, "full house of address")),
    ],
    ids=["post", "upgrade", "route", "house"],
)
async def test_what_is_refused_the_second_time_has_a_reason(
    request_: bytes, changes: dict[str, Any], expected: tuple[int, str]
) -> None:
    async with surrounded(Lifecycle(), **changes) as (server, lines), await server.connect() as first:
        await first.send_all(request_)
        await Reader(first).until(b"\r\n\r\n")
        lines.clear()
        await ask(server, request_)

    assert line_of([line for line in lines if line.get("reason") or line["event"] != "request"]) == expected


async def test_a_route_that_is_full_has_a_reason() -> None:
    async with surrounded(Lifecycle()) as (server, lines), trio.open_nursery() as nursery:

        async def try_slow() -> None:
            assert await ask(server, get("/slow")) == 503
            nursery.cancel_scope.cancel()  # the other waits for ever

        nursery.start_soon(try_slow)
        nursery.start_soon(try_slow)

    assert (503, "route busy") in [(line["status"], line.get("reason")) for line in lines]


async def test_a_replica_that_leaves_says_so() -> None:
    lifecycle = Lifecycle()
    async with surrounded(lifecycle) as (server, lines):
        lifecycle.start_leaving()
        await ask(server, ECHO)

    assert line_of(lines) == (503, "leaving")


async def test_a_websocket_that_an_error_closes_says_which_and_one_that_its_client_closes_says_nothing() -> None:
    async with surrounded(Lifecycle()) as (server, lines):
        async with await server.connect() as client:
            await (await upgrade(client, "/raise/after")).rest()
        async with await server.connect() as client:
            reader = await upgrade(client, "/echo")
            await client.send_all(frame(CLOSE, b"\x03\xe8"))
            await reader.rest()

    closed = [(line["code"], line["reason"]) for line in lines if line["event"] == "websocket closed"]
    assert closed == [(1011, "database busy"), (1000, "")]


async def test_an_upgrade_whose_client_leaves_is_aborted_and_not_refused() -> None:
    asked = trio.Event()
    async with surrounded(Lifecycle(), asked=asked) as (server, lines):
        async with await server.connect() as client:
            await client.send_all(UPGRADE % (b"/wait", b""))
            await asked.wait()
        with trio.fail_after(10):
            while not lines:  # noqa: ASYNC110  a log has no event
                await trio.sleep(0.01)

    assert line_of(lines) == ("aborted", None)


def test_the_reason_of_an_error_of_ones_own_is_that_of_its_kind() -> None:
    class SoldOut(Conflict):
        pass

    assert (SoldOut("no more").reason, ServiceError().reason) == ("conflict", "error")
