"""A1 to A5: what one client could do to end the process, with a bystander whose request is in flight meanwhile."""

import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
import structlog
import trio
from hyperframe.frame import PriorityFrame
from quart_trio import QuartTrio

from service.platform.server import Application
from tests.platform.server.conftest import running, running_bare
from tests.platform.server.processes import Child, child
from tests.platform.server.wire import UPGRADE, Reader, get

H2C_UPGRADE = get(
    "/",
    headers=["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
)


async def _trailing_byte(stream: trio.SocketStream) -> None:
    await stream.send_all(UPGRADE % (b"/echo", b"") + b"x")
    await _until_closed(stream)


async def _host_that_is_no_text(stream: trio.SocketStream) -> None:
    await stream.send_all(b"GET / HTTP/1.1\r\nHost: \xff\r\nConnection: close\r\n\r\n")
    await _until_closed(stream)


async def _data_after_the_response(stream: trio.SocketStream) -> None:
    connection = await _speak_http2(stream)
    connection.send_headers(1, _http2_headers("POST"))
    await stream.send_all(connection.data_to_send())
    while not await _see(stream, connection, h2.events.StreamEnded):
        pass
    connection.send_data(1, b"late")
    await stream.send_all(connection.data_to_send())
    await _until_closed(stream)


async def _a_thousand_priorities(stream: trio.SocketStream) -> None:
    await _speak_http2(stream)
    with contextlib.suppress(trio.BrokenResourceError):
        for number in range(1, 2 * 1_005, 2):
            await stream.send_all(PriorityFrame(number, stream_weight=15).serialize())
    await _until_closed(stream)


async def _a_thousand_streams(stream: trio.SocketStream) -> None:
    """Ask a thousand times, and more often in one packet that nobody waits for."""
    connection = await _speak_http2(stream)
    numbers = itertools.count(1, 2)
    for _ in range(20):
        ended = 0
        await stream.send_all(_ask_often(connection, itertools.islice(numbers, 50)))
        while ended < 50:
            ended += await _see(stream, connection, h2.events.StreamEnded)
    await stream.send_all(_ask_often(connection, itertools.islice(numbers, 95)))


def _ask_often(connection: h2.connection.H2Connection, numbers: Iterable[int]) -> bytes:
    for number in numbers:
        connection.send_headers(number, _http2_headers("GET"), end_stream=True)
    return connection.data_to_send()


async def _speak_http2(stream: trio.SocketStream) -> h2.connection.H2Connection:
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    connection.initiate_connection()
    await stream.send_all(connection.data_to_send())
    return connection


def _http2_headers(method: str) -> list[tuple[str, str]]:
    return [(":method", method), (":path", "/nowhere"), (":scheme", "http"), (":authority", "x")]


async def _see(stream: trio.SocketStream, connection: h2.connection.H2Connection, kind: type) -> int:
    """Return how many events of a kind the next bytes are; what they give up of the window is given back."""
    data = await stream.receive_some()
    if data.startswith(b"HTTP/1.1") or not data:
        raise ConnectionError("not HTTP/2")
    events = connection.receive_data(data)
    for event in events:
        if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
    await stream.send_all(connection.data_to_send())
    return sum(isinstance(event, kind) for event in events)


async def _until_closed(stream: trio.SocketStream) -> None:
    with trio.move_on_after(1):
        while await stream.receive_some():
            pass


@dataclass(frozen=True)
class Attack:
    act: Callable[[trio.SocketStream], Awaitable[None]]
    bare: dict[str, Any] = field(default_factory=dict)  # what Hypercorn has to be configured with for it
    at_sigterm: bool = False  # whether it ends the process only once that is told to end


ATTACKS = {
    "A1 a byte behind the upgrade": Attack(_trailing_byte),
    "A2 data after the response": Attack(_data_after_the_response),
    "A3 a Host that is no text": Attack(_host_that_is_no_text, bare={"server_names": ["x"]}),
    "A4 a thousand streams": Attack(_a_thousand_streams, at_sigterm=True),
    "A4 a thousand priorities": Attack(_a_thousand_priorities),
}


async def _attack(server: Child, attack: Attack, *, seconds: float) -> bytes:
    """Return what a bystander got whose request was in flight, and takes so many seconds."""
    async with await server.connect() as bystander, await server.connect() as attacker:
        await bystander.send_all(get(f"/slow/{seconds}"))
        with contextlib.suppress(ConnectionError, trio.BrokenResourceError):
            await attack.act(attacker)
        try:
            return (await Reader(bystander).response())[2]
        except (EOFError, trio.BrokenResourceError):
            return b""


async def test_each_attack_costs_one_connection(tmp_path: Path) -> None:
    async with child("safe", tmp_path / "log") as server:
        for name, attack in ATTACKS.items():
            assert await _attack(server, attack, seconds=0.5) == b"done", name

        server.terminate()
        assert await server.is_gone_within(30)
        assert server.process.returncode == 0


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if not attack.at_sigterm])
async def test_trap_an_attack_ends_the_stack_as_it_comes(name: str, tmp_path: Path) -> None:
    attack = ATTACKS[name]
    async with child("bare", tmp_path / "log", **attack.bare) as server:
        assert await _attack(server, attack, seconds=60.0) == b""  # the end of the process, and not its answer
        assert await server.is_gone_within(30)
        assert server.process.returncode == 1


@pytest.mark.parametrize("name", [name for name, attack in ATTACKS.items() if attack.at_sigterm])
async def test_trap_an_attack_makes_the_stack_as_it_comes_fail_at_sigterm(name: str, tmp_path: Path) -> None:
    async with child("bare", tmp_path / "log") as server, await server.connect() as attacker:
        await ATTACKS[name].act(attacker)
        server.terminate()

        assert await server.is_gone_within(30)
        assert server.process.returncode == 1


async def test_a_failing_connection_is_logged_and_counted_and_the_others_stay(safe_app: Application) -> None:
    def fail() -> tuple[int, bytes]:
        raise LookupError("meant")

    with structlog.testing.capture_logs() as logs:
        async with running(safe_app, probes={"/livez": fail}) as server, await server.connect() as bystander:
            await bystander.send_all(get("/slow/0.2"))
            async with await server.connect() as client:
                await client.send_all(get("/livez"))
                assert await client.receive_some() == b""
            status, _, body = await Reader(bystander).response()

    assert (status, body) == (200, b"done")
    assert server.statistics.connection_errors == {"ExceptionGroup": 1}
    told = [(line["event"], line["log_level"], line["client"]) for line in logs]
    assert told == [("connection failed", "error", "127.0.0.1")]


async def test_http2_is_off(safe_app: Application) -> None:
    async with running(safe_app) as server:
        async with await server.connect() as client:
            await client.send_all(H2C_UPGRADE)
            assert (await Reader(client).response())[::2] == (200, b"hello")

        async with await server.connect() as client:
            await client.send_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            assert (await Reader(client).rest()).startswith(b"HTTP/1.1 4")


async def test_trap_http2_is_always_on_in_the_stack_as_it_comes(bare_app: QuartTrio) -> None:
    async with running_bare(bare_app) as server, await server.connect() as client:
        await client.send_all(H2C_UPGRADE)
        assert (await client.receive_some()).startswith(b"HTTP/1.1 101")
