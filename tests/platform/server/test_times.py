"""B4 to B6: connections that are idle, slow or gone end on time, and what was asked for on them is honoured."""

import contextlib
import select
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from quart import websocket
from quart_trio import QuartTrio

from service.platform.server import Application
from tests.platform.server.child import add_routes, make_settings
from tests.platform.server.conftest import running, running_bare
from tests.platform.server.processes import child
from tests.platform.server.wire import Reader, get, upgrade, vanish

KEEP_ALIVE = 0.3
POST = b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
REQUESTS = {
    "answer": get("/"),
    "error": get("/error"),
    "not found": get("/nowhere"),
    "body read": POST + b"12345",
    "body not read": POST.replace(b"/read", b"/nowhere") + b"12345",
    "probe": get("/livez"),
}
PROBES = {"/livez": lambda: (200, b"{}")}


async def until_closed(client: trio.SocketStream) -> None:
    """Wait until the other side closes, having answered or not."""
    while await client.receive_some():
        pass


@pytest.mark.parametrize("name", REQUESTS)
async def test_an_idle_connection_closes_on_time(
    safe_app: Application, mock_clock: trio.testing.MockClock, name: str
) -> None:
    """The clock jumps: how late this process runs on a busy machine does not count."""
    mock_clock.rate = 1
    keep = running(safe_app, make_settings(keep_alive_timeout=20), probes=PROBES)
    async with keep as server, await server.connect() as client:
        for _ in range(2):
            await client.send_all(REQUESTS[name])
            await Reader(client).response()
        await trio.testing.wait_all_tasks_blocked()  # its time begins when the answer is out
        mock_clock.jump(15)
        await trio.testing.wait_all_tasks_blocked()
        kept = server.statistics.connections_open
        mock_clock.jump(5)
        with trio.fail_after(10):
            await until_closed(client)

    assert kept == 1


async def test_a_request_that_takes_longer_than_an_idle_connection_is_kept_is_answered(safe_app: Application) -> None:
    keep = running(safe_app, make_settings(keep_alive_timeout=KEEP_ALIVE))
    async with keep as server, await server.connect() as client:
        reader = Reader(client)
        for _ in range(2):
            await client.send_all(get("/"))
            await reader.response()
        await client.send_all(get(f"/slow/{3 * KEEP_ALIVE}"))
        answer = await reader.response()

    assert (answer[0], answer[2]) == (200, b"done")


async def test_a_beginning_of_a_request_has_the_time_for_headers_and_not_that_of_an_idle_connection(
    safe_app: Application, mock_clock: trio.testing.MockClock
) -> None:
    mock_clock.rate = 1
    settings = make_settings(keep_alive_timeout=5, header_timeout=25)
    async with running(safe_app, settings) as server, await server.connect() as client:
        await client.send_all(get("/"))
        await Reader(client).response()
        await client.send_all(b"GET / HT")
        await trio.testing.wait_all_tasks_blocked(0.1)  # it has been read
        mock_clock.jump(15)
        await trio.testing.wait_all_tasks_blocked()
        kept = server.statistics.connections_open
        mock_clock.jump(10)
        answer = await Reader(client).response()

    assert kept == 1
    assert answer[0] == 408


async def test_trap_an_idle_connection_never_closes_on_the_stack_as_it_comes(bare_app: QuartTrio) -> None:
    async with running_bare(bare_app, keep_alive_timeout=KEEP_ALIVE) as server, await server.connect() as client:
        await client.send_all(get("/"))
        await Reader(client).response()
        with trio.move_on_after(1) as patience:
            await client.receive_some()

    assert patience.cancelled_caught


@pytest.mark.parametrize("path", ["/", "/error", "/nowhere", "/livez"])
@pytest.mark.parametrize(("version", "headers"), [("1.0", []), ("1.1", ["Connection: close"])])
async def test_a_connection_that_is_not_to_be_kept_closes_at_once(
    safe_app: Application, path: str, version: str, headers: list[str]
) -> None:
    async with running(safe_app, probes=PROBES) as server, await server.connect() as client:
        await client.send_all(get(path, version=version, headers=headers))

        with trio.fail_after(30):  # an idle one is kept for longer
            await until_closed(client)


@pytest.mark.parametrize("path", [b"/nowhere", b"/ignore", b"/stream-of-one"])
@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
async def test_an_answer_ahead_of_its_requests_body_says_that_it_is_the_last(
    safe_app: Application, path: bytes, framing: bytes
) -> None:
    """A proxy would send its next request on a connection that is being closed."""

    @safe_app.post("/stream-of-one")
    async def stream_of_one() -> AsyncIterator[bytes]:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"

        return parts()

    head = POST.replace(b"/read", path).replace(b"Content-Length: 5", framing)
    async with running(safe_app) as server, await server.connect() as client:
        await client.send_all(head)
        reader = Reader(client)
        answer = await reader.until(b"\r\n\r\n")
        await reader.rest()

    assert answer.lower().count(b"connection: close\r\n") == 1


async def send_on(client: trio.SocketStream, clock: trio.testing.MockClock, seconds: int) -> None:
    """Go on with a body, a byte a second, and see each read."""
    for _ in range(seconds):
        clock.jump(1)
        await client.send_all(b"1")
        await trio.testing.wait_all_tasks_blocked(0.05)


async def test_who_goes_on_with_a_body_that_was_refused_is_listened_to_for_as_long_as_a_body_may_take(
    safe_app: Application, mock_clock: trio.testing.MockClock
) -> None:
    """A proxy that sends all of it ahead of reading the answer would say 502 after a reset."""
    settings = make_settings(body_timeout=30)
    async with running(safe_app, settings) as server, await server.connect() as client:
        await client.send_all(POST.replace(b"/read", b"/nowhere").replace(b"5", b"50"))
        answer = await Reader(client).rest()
        await send_on(client, mock_clock, 25)
        kept = server.statistics.connections_open
        with contextlib.suppress(trio.BrokenResourceError):
            await send_on(client, mock_clock, 10)
        left = server.statistics.connections_open

    assert answer[9:12] == b"404"
    assert (kept, left) == (1, 0)


async def test_who_says_no_more_after_a_refusal_is_let_go_soon(
    safe_app: Application, mock_clock: trio.testing.MockClock
) -> None:
    settings = make_settings(body_timeout=30)
    async with running(safe_app, settings) as server, await server.connect() as client:
        await client.send_all(POST.replace(b"/read", b"/nowhere"))
        await Reader(client).rest()
        mock_clock.jump(3)
        await trio.testing.wait_all_tasks_blocked(0.05)

        assert server.statistics.connections_open == 0


async def test_who_goes_on_after_the_end_of_a_websocket_is_let_go_soon(
    safe_app: Application, mock_clock: trio.testing.MockClock
) -> None:
    """There is no body to its end: it was told to close, and may be one that floods."""
    async with running(safe_app, make_settings(body_timeout=30)) as server, await server.connect() as client:
        reader = await upgrade(client, "/return")
        assert await reader.close_code() == 1000
        with contextlib.suppress(trio.BrokenResourceError):
            await send_on(client, mock_clock, 5)

        assert server.statistics.connections_open == 0


@pytest.mark.parametrize("missing", [0, 1], ids=["refused before", "refused after"])
async def test_an_end_of_the_server_does_not_wait_for_a_body_that_was_refused(
    safe_app: Application, mock_clock: trio.testing.MockClock, missing: int
) -> None:
    head = POST.replace(b"/read", b"/nowhere").replace(b"5", b"50")
    first = head[: len(head) - missing]
    settings = make_settings(body_timeout=30, graceful_timeout=60)
    async with running(safe_app, settings) as server, await server.connect() as client:
        await client.send_all(first)
        await trio.testing.wait_all_tasks_blocked(0.05)
        server.stop.set()
        await trio.testing.wait_all_tasks_blocked(0.05)
        await client.send_all(head[len(first) :])
        await Reader(client).rest()
        with contextlib.suppress(trio.BrokenResourceError):
            await send_on(client, mock_clock, 5)

        assert server.stopped.is_set()


async def test_a_body_that_comes_behind_its_head_and_is_read_ends_no_connection(safe_app: Application) -> None:
    async with running(safe_app) as server, await server.connect() as client:
        reader = Reader(client)
        for _ in range(2):
            await client.send_all(POST)
            await trio.testing.wait_all_tasks_blocked()
            await client.send_all(b"12345")
            status, head, body = await reader.response()

    assert (status, body, b"connection" in head.lower()) == (200, b"5", False)


async def test_trap_connection_close_is_not_honoured_by_the_stack_as_it_comes(bare_app: QuartTrio) -> None:
    async with running_bare(bare_app) as server, await server.connect() as client:
        await client.send_all(get("/", headers=["Connection: close"]))
        await Reader(client).response()
        with trio.move_on_after(1) as patience:
            await client.receive_some()

    assert patience.cancelled_caught


@pytest.mark.parametrize("first", [b"", get("/")[:-2]], ids=["idle", "in its headers"])
async def test_what_came_while_the_process_stood_still_is_answered(tmp_path: Path, first: bytes) -> None:
    """The time of the connection is over by then, and which of the two is noticed is chance: it is tried often."""
    times = {"keep_alive_timeout": KEEP_ALIVE, "header_timeout": KEEP_ALIVE}
    tried = 0
    async with child("safe", tmp_path / "log", **times) as server:
        while tried < 8:
            async with await server.connect() as client:
                await client.send_all(get("/") + first)
                reader = Reader(client)
                await reader.response()
                server.process.send_signal(signal.SIGSTOP)
                if select.select([client.socket], [], [], 0)[0]:  # closed in time, as this process was late itself
                    server.process.send_signal(signal.SIGCONT)
                    continue
                await client.send_all(get("/").removeprefix(first))
                await trio.sleep(2 * KEEP_ALIVE)
                server.process.send_signal(signal.SIGCONT)

                assert (await reader.response())[2] == b"hello"
                tried += 1


async def test_requests_in_one_packet_are_answered_in_order(safe_app: Application) -> None:
    async with running(safe_app) as server, await server.connect() as client:
        await client.send_all(get("/slow/0.1") + get("/") + get("/slow/0.0"))
        reader = Reader(client)

        assert [(await reader.response())[2] for _ in range(3)] == [b"done", b"hello", b"done"]


async def test_a_request_behind_a_closing_one_leaves_nothing_behind(safe_app: Application) -> None:
    async with running(safe_app) as server:
        async with await server.connect() as client:
            await client.send_all(get("/slow/0.1", headers=["Connection: close"]) + get("/"))
            answer = await Reader(client).rest()
        with trio.fail_after(4):
            while server.statistics.connections_open:
                await trio.sleep(0.02)

    assert answer.count(b"HTTP/1.1 200") == 1


async def test_trap_a_request_behind_a_closing_one_takes_its_answer_on_the_stack_as_it_comes(
    bare_app: QuartTrio,
) -> None:
    async with running_bare(bare_app) as server, await server.connect() as client:
        await client.send_all(get("/slow/0.1", headers=["Connection: close"]) + get("/"))
        assert (await client.receive_some()).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"", b""),
        (b"GET / HT", b"408"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n", b"408"),
        (b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12", b"408"),
        (b"POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12", b"408"),
    ],
)
async def test_a_client_that_is_slow_with_its_request_is_told_and_let_go(sent: bytes, status: bytes) -> None:
    settings = make_settings(header_timeout=KEEP_ALIVE, body_timeout=KEEP_ALIVE)
    app = add_routes(Application("slow", settings=settings))
    async with running(app, settings) as server, await server.connect() as client:
        if sent:
            await client.send_all(sent)
        with trio.fail_after(5):
            answer = await Reader(client).rest()

    assert answer[9:12] == status


async def test_a_slow_client_is_told_also_where_its_last_part_is_taken_behind_the_time(
    mock_clock: trio.testing.MockClock,
) -> None:
    """The part came in time, and others had their turns before the handler had its own."""
    mock_clock.rate = 1
    settings = make_settings(body_timeout=20)
    app = add_routes(Application("slow", settings=settings))

    async def late(scope: Any, receive: Any, send: Any) -> None:
        async def take() -> Any:
            message = await receive()
            mock_clock.jump(21)
            return message

        await app(scope, take, send)

    async with running(late, settings) as server, await server.connect() as client:
        await client.send_all(POST + b"12")
        status, _, _ = await Reader(client).response()

    assert status == 408


async def test_a_trickle_does_not_lengthen_the_time_for_headers(safe_app: Application) -> None:
    settings = make_settings(header_timeout=KEEP_ALIVE)
    async with running(safe_app, settings) as server, await server.connect() as client:
        with trio.fail_after(5), contextlib.suppress(trio.BrokenResourceError):
            await client.send_all(b"GET / HTTP/1.1\r\n")
            while True:
                await client.send_all(b"X-A: b\r\n")
                await trio.sleep(0.05)


async def test_trap_a_slow_body_is_never_cut_by_the_stack_as_it_comes(bare_app: QuartTrio) -> None:
    async with running_bare(bare_app, keep_alive_timeout=KEEP_ALIVE) as server, await server.connect() as client:
        await client.send_all(POST + b"12")
        with trio.move_on_after(1) as patience:
            await client.receive_some()

    assert patience.cancelled_caught


async def test_headers_over_the_limit_are_refused_however_they_come(safe_app: Application) -> None:
    async with running(safe_app) as server:
        for headers in (["X-A: " + "a" * 20_000], [f"X-{number}: {'a' * 100}" for number in range(200)]):
            async with await server.connect() as client:
                await client.send_all(get("/", headers=headers))
                assert (await Reader(client).rest())[9:12] == b"431"


@pytest.mark.parametrize("size", [20_000, 4_000])
@pytest.mark.parametrize("line", [17_000, 9_000])
async def test_a_request_line_counts_as_well_in_one_packet_and_in_several(
    safe_app: Application, line: int, size: int
) -> None:
    request = get("/" + "a" * line, headers=["X-A: " + "a" * (18_000 - line)])
    async with running(safe_app) as server, await server.connect() as client:
        for start in range(0, len(request), size):
            with contextlib.suppress(trio.BrokenResourceError):  # refused by then
                await client.send_all(request[start : start + size])
            await trio.testing.wait_all_tasks_blocked()
        assert (await Reader(client).response())[0] == 431


async def test_trap_headers_over_the_limit_pass_the_stack_as_it_comes(bare_app: QuartTrio) -> None:
    async with running_bare(bare_app) as server, await server.connect() as client:
        await client.send_all(get("/", headers=["X-A: " + "a" * 20_000]))
        assert (await Reader(client).response())[0] == 200


@pytest.mark.drill
async def test_a_half_open_peer_is_noticed_within_20_seconds(safe_app: Application) -> None:
    async with running(safe_app) as server, await server.connect() as client, await server.connect() as other:
        await upgrade(client)
        await other.send_all(get("/"))
        await Reader(other).response()
        for half in (client, other):
            vanish(half)
        started = trio.current_time()
        with trio.fail_after(25):
            while server.statistics.connections_open:
                await trio.sleep(0.1)
    print(f"half-open peers were noticed after {trio.current_time() - started:.1f} s")


@pytest.mark.drill
async def test_trap_a_half_open_peer_is_not_noticed_by_the_stack_as_it_comes() -> None:
    app = QuartTrio("bare")
    ended = trio.Event()

    @app.websocket("/ws")
    async def wait() -> None:
        await websocket.accept()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with running_bare(app, websocket_ping_interval=1) as server, await server.connect() as client:
        await upgrade(client, "/ws")
        vanish(client)
        with trio.move_on_after(20) as patience:
            await ended.wait()

    assert patience.cancelled_caught
