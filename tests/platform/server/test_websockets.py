"""D2, D5 to D7, D15 and C2: how a websocket ends, what is logged of it, and what its handler may and may not do."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing
from quart_trio import QuartTrio
from trio.testing import MockClock

from service.platform.server import Application, CloseReason, websocket
from service.platform.server.websocket_stream import UNTAKEN_TIMEOUT
from tests.platform.server.conftest import running, running_bare
from tests.platform.server.wire import BINARY, CLOSE, PING, PONG, TEXT, UPGRADE, Reader, frame, upgrade


async def until(condition: Callable[[], Any], seconds: float = 15) -> None:
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


async def test_an_exception_closes_1011_and_is_logged_once(
    safe_app: Application, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(safe_app) as server, await server.connect() as client:
        assert await (await upgrade(client, "/fail")).close_code() == 1011

    assert errors(caplog) == ["Exception on websocket /fail"]
    assert server.statistics.closes["1011"] == 1


async def test_trap_an_exception_closes_1000_on_the_stack_as_it_comes(bare_app: QuartTrio) -> None:
    async with running_bare(bare_app) as server, await server.connect() as client:
        assert await (await upgrade(client, "/fail")).close_code() == 1000


GOODBYES = {
    "no code": frame(CLOSE),
    "1000": frame(CLOSE, b"\x03\xe8"),
    "1001": frame(CLOSE, b"\x03\xe9bye"),
    "none": None,
}


@pytest.mark.parametrize("goodbye", GOODBYES.values(), ids=GOODBYES)
async def test_a_normal_end_is_no_error(
    safe_app: Application, caplog: pytest.LogCaptureFixture, goodbye: bytes | None
) -> None:
    async with running(safe_app) as server:
        async with await server.connect() as client:
            reader = await upgrade(client)
            if goodbye is not None:
                await client.send_all(goodbye)
                opcode, answer = await reader.frame()
                assert (opcode, answer[:2]) == (CLOSE, unmask(goodbye)[:2])
                assert await client.receive_some() == b""
        await until(lambda: not server.statistics.connections_open)

    assert errors(caplog) == []
    assert server.statistics.websockets_open == 0
    assert server.statistics.closes.total() == 1


def unmask(data: bytes) -> bytes:
    return bytes(byte ^ data[2 + index % 4] for index, byte in enumerate(data[6:]))


async def test_trap_a_normal_end_logs_an_error_on_the_stack_as_it_comes(
    bare_app: QuartTrio, caplog: pytest.LogCaptureFixture
) -> None:
    async with running_bare(bare_app) as server:
        async with await server.connect() as client:
            reader = await upgrade(client)
            await client.send_all(frame(TEXT, b"x") + frame(CLOSE))
            await reader.close_code()
        await trio.sleep(0.1)

    assert errors(caplog) == ["Exception on websocket /echo"]


async def test_a_handler_that_returns_closes_1000(safe_app: Application) -> None:
    async with running(safe_app) as server, await server.connect() as client:
        assert await (await upgrade(client, "/return")).close_code() == 1000


async def test_what_was_sent_before_a_clean_close_is_still_handled(app: Application) -> None:
    handled: list[object] = []

    @app.websocket("/ws")
    async def handle() -> None:
        while True:
            await trio.sleep(0.05)
            handled.append(await websocket.receive())

    async with running(app) as server, await server.connect() as client:
        await upgrade(client, "/ws")
        await client.send_all(b"".join(frame(TEXT, b"%d" % number) for number in range(5)) + frame(CLOSE))
        await client.send_eof()
        await until(lambda: not server.statistics.connections_open)

    assert handled == ["0", "1", "2", "3", "4"]


async def test_trap_what_was_sent_before_a_clean_close_is_lost_on_the_stack_as_it_comes() -> None:
    app = QuartTrio("bare")
    handled: list[object] = []
    ended = trio.Event()

    @app.websocket("/ws")
    async def handle() -> None:
        try:
            while True:
                await trio.sleep(0.05)
                handled.append(await websocket.receive())
        finally:
            ended.set()

    async with running_bare(app) as server, await server.connect() as client:
        await upgrade(client, "/ws")
        await client.send_all(b"".join(frame(TEXT, b"%d" % number) for number in range(5)) + frame(CLOSE))
        with trio.fail_after(5):
            await ended.wait()

    assert len(handled) < 5


@pytest.mark.parametrize("goodbye", [frame(CLOSE), None], ids=["close", "none"])
async def test_a_websocket_whose_client_has_left_is_gone_at_once(safe_app: Application, goodbye: bytes | None) -> None:
    async with running(safe_app) as server:
        async with await server.connect() as client:
            await upgrade(client)
            if goodbye is not None:
                await client.send_all(goodbye)
        await until(lambda: not server.statistics.connections_open)


async def test_trap_with_a_ping_interval_a_websocket_outlives_its_client_on_the_stack_as_it_comes(
    bare_app: QuartTrio,
) -> None:
    async with running_bare(bare_app, websocket_ping_interval=3) as server:
        await trio.testing.wait_all_tasks_blocked()  # some of its tasks start after it says that it has started
        before = trio.lowlevel.current_statistics().tasks_living
        async with await server.connect() as client:
            reader = await upgrade(client)
            await client.send_all(frame(CLOSE))
            await reader.close_code()
        await trio.sleep(0.5)
        assert trio.lowlevel.current_statistics().tasks_living > before
        await until(lambda: trio.lowlevel.current_statistics().tasks_living == before, 10)  # at the next tick


async def test_a_peer_that_is_gone_cancels_the_handler_at_once(app: Application) -> None:
    ended: list[float] = []

    @app.websocket("/ws")
    async def wait() -> None:
        await websocket.accept()
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with running(app) as server:
        async with await server.connect() as client:
            await upgrade(client, "/ws")
        gone = trio.current_time()
        await until(lambda: ended)

    assert ended[0] - gone < 2


async def test_an_empty_binary_message_arrives_as_one(app: Application) -> None:
    received: list[object] = []

    @app.websocket("/ws")
    async def receive() -> None:
        while True:
            received.append(await websocket.receive())

    async with running(app) as server, await server.connect() as client:
        await upgrade(client, "/ws")
        await client.send_all(frame(BINARY) + frame(TEXT))
        await until(lambda: len(received) == 2)

    assert received == [b"", ""]


async def test_trap_an_empty_binary_message_is_none_on_the_stack_as_it_comes() -> None:
    app = QuartTrio("bare")
    received: list[object] = []

    @app.websocket("/ws")
    async def receive() -> None:
        while True:
            received.append(await websocket.receive())

    async with running_bare(app) as server, await server.connect() as client:
        await upgrade(client, "/ws")
        await client.send_all(frame(BINARY))
        await until(lambda: received)

    assert received == [None]


async def test_a_subprotocol_that_was_not_offered_is_a_500_with_the_reason_logged(
    safe_app: Application, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(safe_app) as server, await server.connect() as client:
        await client.send_all(UPGRADE % (b"/subprotocol", b"Sec-WebSocket-Protocol: words.v1\r\n"))
        assert (await Reader(client).response())[0] == 500

    assert "'not.offered' is not among the offered ['words.v1']" in caplog.text


async def test_trap_a_subprotocol_that_was_not_offered_ends_the_connection_on_the_stack_as_it_comes(
    bare_app: QuartTrio,
) -> None:
    async with running_bare(bare_app) as server, await server.connect() as client:
        await client.send_all(UPGRADE % (b"/subprotocol", b"Sec-WebSocket-Protocol: words.v1\r\n"))
        answer = b""
        with trio.move_on_after(1):
            answer = await client.receive_some()

        assert not answer.startswith(b"HTTP/1.1 500"), answer


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/abort", b"", 403), ("/nowhere", b"", 404), ("/echo", b"Sec-WebSocket-Version: 12\r\n", 426)],
)
async def test_an_upgrade_is_refused_with_a_status_and_the_connection_closes(
    safe_app: Application, path: str, headers: bytes, status: int
) -> None:
    async with running(safe_app) as server:
        async with await server.connect() as client:
            request = UPGRADE.replace(b"Sec-WebSocket-Version: 13\r\n", b"") if headers else UPGRADE
            await client.send_all(request % (path.encode(), headers))
            reader = Reader(client)
            assert (await reader.response())[0] == status
            assert await reader.rest() == b""
        await until(lambda: not server.statistics.connections_open)


async def test_trap_a_refused_handshake_leaves_its_connection_open_on_the_stack_as_it_comes(
    bare_app: QuartTrio,
) -> None:
    async with running_bare(bare_app, keep_alive_timeout=0.3) as server, await server.connect() as client:
        await client.send_all(UPGRADE.replace(b"Sec-WebSocket-Version: 13\r\n", b"") % (b"/echo", b""))
        assert (await Reader(client).response())[0] == 400
        with trio.move_on_after(1) as patience:
            await client.receive_some()

    assert patience.cancelled_caught


async def test_trap_a_fault_ends_a_websocket_without_a_close_frame_on_the_stack_as_it_comes(
    bare_app: QuartTrio,
) -> None:
    async with running_bare(bare_app) as server, await server.connect() as client:
        reader = await upgrade(client)
        await client.send_all(frame(TEXT, b"x", rsv=4))
        assert await reader.rest() == b""


async def test_a_ping_is_answered_and_the_answer_shows(app: Application) -> None:
    seen: list[float] = []

    @app.websocket("/ws")
    async def ping() -> None:
        await websocket.ping()
        before = websocket.last_received
        while websocket.last_received == before:
            await trio.sleep(0.01)
        seen.append(websocket.last_received - before)

    async with running(app) as server, await server.connect() as client:
        reader = await upgrade(client, "/ws")
        assert await reader.frame() == (PING, b"")
        await trio.sleep(0.1)
        await client.send_all(frame(PONG))
        await reader.close_code()

    assert seen[0] > 0.05


async def test_closing_waits_a_second_for_a_peer_that_does_not_answer(app: Application) -> None:
    took: list[float] = []

    @app.websocket("/ws")
    async def close() -> None:
        await websocket.accept()
        started = trio.current_time()
        await websocket.close(4000, "enough")
        took.append(trio.current_time() - started)
        await websocket.close(4001)  # a second goodbye is none

    async with running(app) as server:
        for answer, least, most in ((b"", 0.9, 5), (frame(CLOSE, b"\x0f\xa0"), 0, 0.9)):
            async with await server.connect() as client:
                reader = await upgrade(client, "/ws")
                assert await reader.frame() == (CLOSE, b"\x0f\xa0enough")
                await client.send_all(answer)
                assert await reader.rest() == b""
            assert least <= took.pop() < most


async def test_all_are_told_that_the_server_restarts(safe_app: Application) -> None:
    async with running(safe_app) as server, trio.open_nursery() as nursery:
        codes: list[int] = []

        async def member() -> None:
            async with await server.connect() as client:
                codes.append(await (await upgrade(client)).close_code())

        for _ in range(50):
            nursery.start_soon(member)
        await until(lambda: server.websockets.count == server.statistics.websockets_open == 50)
        started = trio.current_time()
        await server.websockets.close_all(CloseReason.SERVICE_RESTART)

    assert codes == [1012] * 50
    assert trio.current_time() - started < 10  # one after the other they would take 50
    assert server.websockets.count == server.statistics.websockets_open == 0


@pytest.mark.parametrize("answers", [True, False])
async def test_a_handler_that_only_sends_ends_with_the_goodbyes(
    app: Application, mock_clock: MockClock, *, answers: bool
) -> None:
    """It asks for nothing, and so hears of no end: a peer that answers would keep it, and the process, for it."""
    mock_clock.rate = 5
    over = trio.Event()

    @app.websocket("/ws")
    async def ws() -> None:
        try:
            while True:
                await websocket.send("tick")
                await trio.sleep(0.1)
        finally:
            over.set()

    async with running(app) as server, await server.connect() as client, trio.open_nursery() as nursery:
        reader = await upgrade(client, "/ws")
        await reader.frame()
        nursery.start_soon(server.websockets.close_all, CloseReason.SERVICE_RESTART)
        code = await reader.close_code()
        if answers:
            await client.send_all(frame(CLOSE, b"\x03\xf4"))
        with trio.fail_after(30):
            await over.wait()
        await until(lambda: not server.statistics.connections_open, seconds=30)

    assert code == CloseReason.SERVICE_RESTART
    assert server.statistics.closes == {"1012": 1}


async def test_a_websocket_that_both_close_is_counted_once(app: Application) -> None:
    """By who was first: the handler, which has not heard of it, closes as well."""
    closed = trio.Event()

    @app.websocket("/ws")
    async def ws() -> None:
        await websocket.receive()
        await until(lambda: server.statistics.closes)  # the peer's has come
        await websocket.close(CloseReason.POLICY_VIOLATION)
        closed.set()

    async with running(app) as server, await server.connect() as client:
        reader = await upgrade(client, "/ws")
        await client.send_all(frame(TEXT, b"hello") + frame(CLOSE, b"\x03\xe8"))
        code = await reader.close_code()
        await closed.wait()

    assert code == CloseReason.POLICY_VIOLATION
    assert server.statistics.closes == {"1000": 1}


@pytest.mark.parametrize(("draining", "code"), [(True, 1012), (False, 1011)])
async def test_even_when_the_server_is_cancelled_a_websocket_is_told(
    safe_app: Application, *, draining: bool, code: int
) -> None:
    async with trio.open_nursery() as nursery:
        async with running(safe_app) as server:
            client = await server.connect()
            reader = await upgrade(client, "/deaf")
            if draining:
                server.lifecycle.start_draining()
        async with client:
            assert await reader.close_code() == code
        nursery.cancel_scope.cancel()


async def test_a_burst_after_a_join_is_not_cut(app: Application) -> None:
    handled: list[object] = []

    @app.websocket("/ws")
    async def busy() -> None:
        await websocket.accept()
        await trio.sleep(0.3)  # a join that takes a while
        while True:
            handled.append(await websocket.receive())

    async with running(app) as server, await server.connect() as client:
        await upgrade(client, "/ws")
        await client.send_all(b"".join(frame(TEXT, b"x" * 1000) for _ in range(600)))
        await until(lambda: len(handled) == 600)


async def test_a_flood_that_no_handler_takes_is_closed_1008(
    safe_app: Application,
) -> None:
    async with running(safe_app) as server, await server.connect() as client:
        reader = await upgrade(client, "/deaf")

        async def flood() -> None:
            while True:
                await client.send_all(frame(TEXT, b"x" * 10_000))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood)
            with trio.fail_after(UNTAKEN_TIMEOUT + 5):
                assert await reader.close_code() == 1008
            nursery.cancel_scope.cancel()
