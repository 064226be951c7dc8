"""C1 to C4: what a peer can make the server keep, and how quickly a probe is answered meanwhile."""

import contextlib
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from tests.platform.server.processes import Child, child
from tests.platform.server.wire import BINARY, PING, TEXT, Reader, frame, get, upgrade

MB = 1 << 20
GROWTH = 32  # MB
LATENCY = 0.1  # promised, if the machine has nothing else to do
BUSY_LATENCY = 2.0  # beside other work; what holds the event loop holds it longer, and for each probe
STANDSTILL = 0.7  # seconds after which the server is taken not to read any more

CHUNK = b"100000\r\n" + bytes(MB) + b"\r\n"
POST = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


async def send_until_cut(client: trio.SocketStream, data: bytes, times: int) -> None:
    """Send as long as the server goes on taking it."""
    with contextlib.suppress(trio.BrokenResourceError):
        for _ in range(times):
            with trio.move_on_after(STANDSTILL) as patience:
                await client.send_all(data)
            if patience.cancelled_caught:
                break


async def body_that_is_read(server: Child, size: int) -> None:
    async with await server.connect() as client:
        await client.send_all(POST % b"/read")
        await send_until_cut(client, CHUNK, size)


async def body_that_is_not_read(server: Child, size: int) -> None:
    async with await server.connect() as client:
        await client.send_all(POST % b"/ignore")
        await send_until_cut(client, CHUNK, size)


async def frames_that_nobody_takes(server: Child, size: int) -> None:
    async with await server.connect() as client:
        await upgrade(client, "/deaf")
        await send_until_cut(client, frame(BINARY, bytes(60_000)) * 17, size)


async def frames_that_are_too_long(server: Child, size: int) -> None:
    async with await server.connect() as client:
        await upgrade(client, "/echo")
        await send_until_cut(client, frame(BINARY, bytes(MB)), size)


async def message_that_never_ends(server: Child, size: int) -> None:
    async with await server.connect() as client:
        await upgrade(client, "/echo")
        await send_until_cut(client, frame(0, bytes(MB), fin=False), size)


async def pings_whose_pongs_are_not_read(server: Child, size: int) -> None:
    async with await server.connect() as client:
        await upgrade(client, "/deaf")
        await send_until_cut(client, frame(PING, b"x" * 125) * 8_000, size)


async def empty_frames(server: Child, size: int) -> None:
    async with await server.connect() as client:
        await upgrade(client, "/echo")
        await send_until_cut(client, frame(TEXT, fin=False) + frame(0, fin=False) * 170_000, size)


@cache
def packed(size: int) -> bytes:
    """Return a frame that is `size` MB when it is unpacked, and 1/1000 of that on the wire."""
    packer = zlib.compressobj(wbits=-15)
    text = b"".join(packer.compress(bytes(MB)) for _ in range(size)) + packer.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, text[:-4], rsv=4)


async def bomb(server: Child, size: int) -> None:
    async with await server.connect() as client:
        await upgrade(client, "/echo", DEFLATE)
        await client.send_all(packed(size))
        with trio.move_on_after(3), contextlib.suppress(EOFError, trio.BrokenResourceError):
            await Reader(client).close_code()


BOMB = "509 KiB that unpack to 500 MB"
ATTACKS: dict[str, tuple[Callable[[Child, int], Awaitable[None]], int]] = {
    "200 MB chunked, read": (body_that_is_read, 200),
    "200 MB chunked, not read": (body_that_is_not_read, 200),
    "flood to a deaf handler": (frames_that_nobody_takes, 200),
    "150 MB of over-long frames": (frames_that_are_too_long, 150),
    "150 MB of one message": (message_that_never_ends, 150),
    "50 MB of pings": (pings_whose_pongs_are_not_read, 50),
    "10 MB of empty frames": (empty_frames, 10),
    BOMB: (bomb, 500),
}
# The traps of the stack as it comes, with less of each: it would take its time over more.
TRAPS: dict[str, tuple[Callable[[Child, int], Awaitable[None]], int]] = {
    "C1 read": (body_that_is_read, 60),
    "C2": (frames_that_nobody_takes, 60),
    "C3": (frames_that_are_too_long, 60),
    "C4": (bomb, 50),
}


@pytest.mark.parametrize("most", [BUSY_LATENCY, pytest.param(LATENCY, marks=pytest.mark.drill)])
async def test_memory_stays_flat_and_probes_quick_whatever_is_sent(tmp_path: Path, most: float) -> None:
    packed(ATTACKS[BOMB][1])  # now, or it would hold the loop that times the probes
    async with child("safe", tmp_path / "log") as server:
        await body_that_is_read(server, 1)  # whatever is imported and cached the first time
        for name, (attack, size) in ATTACKS.items():
            server.forget_peak()
            before = server.rss
            async with watching(server) as latencies:
                await attack(server, size)
            growth = server.peak_rss - before
            late = sorted(latencies)[int(len(latencies) * 0.99)]
            print(f"{name}: {growth:+.1f} MB, probes p99 {late * 1000:.0f} ms, max {max(latencies) * 1000:.0f} ms")

            assert growth < GROWTH, name
            assert late < most, name


@pytest.mark.drill  # four processes, and seconds in which one of them stands still
async def test_trap_memory_grows_on_the_stack_as_it_comes(tmp_path: Path) -> None:
    growth: dict[str, float] = {}

    async def suffer(name: str, attack: Callable[[Child, int], Awaitable[None]], size: int) -> None:
        async with child("bare", tmp_path / name, websocket_max_message_size=65_536) as server:
            before = server.rss
            await attack(server, size)
            growth[name] = round(server.peak_rss - before, 1)

    async with trio.open_nursery() as nursery:
        for name, (attack, size) in TRAPS.items():
            nursery.start_soon(suffer, name, attack, size)
    print(growth)

    assert all(growth[name] > GROWTH for name in TRAPS)


@asynccontextmanager
async def watching(server: Child) -> AsyncIterator[list[float]]:
    """Ask for `/livez` 50 times a second and collect how long each answer takes, in seconds."""
    latencies: list[float] = []

    async def watch() -> None:
        async with await server.connect() as client:
            reader = Reader(client)
            while True:
                started = trio.current_time()
                await client.send_all(get("/livez"))
                await reader.response()
                latencies.append(trio.current_time() - started)
                await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await trio.sleep(0.1)
        yield latencies
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
