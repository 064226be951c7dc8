"""B2: what is sent to a websocket in order and at once, and what becomes of one that does not read, beside others."""

from typing import Any

import trio
import trio.lowlevel
from quart import websocket as bare_websocket
from quart_trio import QuartTrio

from service.platform.server import Application, Frame, TooSlowError, encode_frame, websocket
from service.platform.server.websocket_stream import WebsocketStream
from tests.platform.server.conftest import Server, running, running_bare
from tests.platform.server.wire import BINARY, CLOSE, PING, TEXT, UPGRADE, Reader, get, stalled, upgrade

ROUNDS, PAYLOAD = 40, "x" * 60_000


async def stalled_and_quick(server: Server) -> tuple[trio.SocketStream, Reader]:
    """Join a room twice: one that never reads, with a receive buffer that is soon full, and one that does."""
    slow = await stalled(server.port, UPGRADE % (b"/join", b""))
    return slow, await upgrade(await server.connect(), "/join")


async def received(reader: Reader, seconds: float) -> int:
    """Return how many of ROUNDS frames come within so many seconds."""
    number = 0
    with trio.move_on_after(seconds):
        while number < ROUNDS:
            await reader.frame()
            number += 1
    return number


async def test_a_broadcast_waits_for_no_member(app: Application) -> None:
    members: list[Any] = []

    @app.websocket("/join")
    async def join() -> None:
        await websocket.accept()
        members.append(websocket.outbox)
        await websocket.receive()

    @app.get("/broadcast")
    async def broadcast() -> str:
        message = encode_frame(PAYLOAD)
        for _ in range(ROUNDS):
            for outbox in tuple(members):
                try:
                    outbox.send_nowait(message)
                except TooSlowError:
                    members.remove(outbox)
            await trio.lowlevel.checkpoint()
        return "sent"

    async with running(app) as server:
        slow, quick = await stalled_and_quick(server)
        async with slow, quick.stream, await server.connect() as caller:
            await caller.send_all(get("/broadcast"))
            assert await received(quick, 5) == ROUNDS
            assert (await Reader(caller).response())[2] == b"sent"

    assert len(members) == 1


async def test_trap_a_broadcast_waits_for_the_slowest_member_on_the_stack_as_it_comes() -> None:
    app = QuartTrio("bare")
    members: list[Any] = []

    @app.websocket("/join")
    async def join() -> None:
        await bare_websocket.accept()
        members.append(bare_websocket._get_current_object())
        await bare_websocket.receive()

    @app.get("/broadcast")
    async def broadcast() -> str:
        for _ in range(ROUNDS):
            for member in members:
                await member.send(PAYLOAD)
        return "sent"

    async with running_bare(app) as server:
        slow, quick = await stalled_and_quick(server)
        async with slow, quick.stream, await server.connect() as caller:
            await caller.send_all(get("/broadcast"))
            assert await received(quick, 1) < ROUNDS


async def test_frames_pings_and_messages_keep_their_order_through_a_slow_moment(app: Application) -> None:
    sent: list[tuple[int, bytes]] = []

    @app.websocket("/ws")
    async def send() -> None:
        await websocket.accept()
        outbox = websocket.outbox
        for number in range(120):
            payload = b"%d" % number + b"." * 8_000
            outbox.send_nowait(encode_frame(payload.decode()))
            sent.append((TEXT, payload))
        await websocket.ping()
        await websocket.send(b"message")
        sent.extend([(PING, b""), (BINARY, b"message")])
        await websocket.close(4000)

    async with running(app) as server, await server.connect() as client:
        reader = await upgrade(client, "/ws")
        await trio.sleep(0.2)
        received = [await reader.frame() for _ in range(122)]
        assert await reader.close_code() == 4000

    assert received == sent


async def test_a_member_that_does_not_read_is_let_go_and_the_close_reaches_it(app: Application) -> None:
    sent = 0

    @app.websocket("/ws")
    async def fill() -> None:
        nonlocal sent
        await websocket.accept()
        big = encode_frame("x" * 60_000)
        try:
            while True:
                websocket.outbox.send_nowait(big)
                sent += 1
        except TooSlowError:
            await websocket.close(4008, "too slow")

    async with running(app) as server, await server.connect() as client:
        reader = await upgrade(client, "/ws")
        await trio.sleep(0.2)
        received = 0
        while (message := await reader.frame())[0] == TEXT:
            received += 1

    assert message == (CLOSE, b"\x0f\xa8too slow")
    assert received < sent  # the rest was thrown away: it would have come before the close


async def test_droppable_frames_go_first(app: Application) -> None:
    @app.websocket("/ws")
    async def fill() -> None:
        await websocket.accept()
        big = encode_frame("x" * 60_000)
        outbox = websocket.outbox
        assert isinstance(outbox, WebsocketStream)
        while not outbox.transport.outbox.waiting_bytes:
            outbox.send_nowait(big)
        for number in range(200):
            outbox.send_nowait(encode_frame(f"presence {number}", droppable=True))
        for number in range(250):
            outbox.send_nowait(Frame(encode_frame(f"message {number}").data))
        await websocket.receive()

    async with running(app) as server, await server.connect() as client:
        reader = await upgrade(client, "/ws")
        await trio.sleep(0.2)
        messages: list[bytes] = []
        while not messages or messages[-1] != b"message 249":
            messages.append((await reader.frame())[1])

    kept = [message for message in messages if not message.startswith(b"x")]
    assert kept == [b"message %d" % number for number in range(250)]
