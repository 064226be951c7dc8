"""The chat measured, in ratios: `python -m tests.chat.bench [throughput fanout node stall idle storm]`."""

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trio
from sqlalchemy import Connection, text

from bench.measure import cpu_seconds
from service.chat import store
from service.chat.store import Draft
from service.chat.writer import Writer
from service.platform.database import open_database, open_embedded
from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import free_port
from service.platform.testing.processes import ready
from service.platform.testing.wire import RawWebsocket
from tests.chat import bench_node
from tests.chat.system.audience import compare, deliver
from tests.chat.system.crowd import come_back, open_many, resident_kib, write
from tests.chat.wire import open_raw

CROWD: dict[str, Any] = {"members": 500, "stalled": 50, "messages": 300, "pause": 0.08}
MORE: dict[str, Any] = {
    "messages": 900,
    "pause": 0.03,
}  # a loop that awaits each member stops once one's buffers are full
UNLIMITED: dict[str, Any] = {
    "rate_per_connection": 0, "rate_per_address": 0, "max_websockets": 20_000, "log_level": "warning",
}  # fmt: skip
WINDOW = 16  # messages that a sender has on their way


def tell(line: str) -> None:
    print(line, flush=True)


def shown(pairs: list[tuple[float, float]]) -> str:
    return ", ".join(f"{ours:.0f}/{theirs:.0f}" for ours, theirs in pairs)


# throughput: one transaction for many messages against one for each, in two forms: statement after statement as most
# samples write it, which is the promise's opponent, and everything in one statement, the best that this way can do


def append_alone(connection: Connection, draft: Draft) -> None:
    """Store one message as most samples do: its own transaction, with its own NOTIFY; without a look for repeats."""
    values = {"room": draft.room, "id": draft.id, "author": draft.author, "text": draft.text}
    seq = connection.execute(
        text("UPDATE chat_room SET seq = seq + 1 WHERE name = :room RETURNING seq"), values
    ).scalar_one()
    statement = text("INSERT INTO chat_message (room, seq, id, author, text) VALUES (:room, :seq, :id, :author, :text)")
    connection.execute(statement, values | {"seq": seq})
    connection.execute(text("SELECT pg_notify('chat', :hint)"), {"hint": f"{draft.room}:{seq}"})


IN_ONE = text("""
    WITH advanced AS (UPDATE chat_room SET seq = seq + 1 WHERE name = :room RETURNING seq),
    inserted AS (
        INSERT INTO chat_message (room, seq, id, author, text) SELECT :room, seq, :id, :author, :text FROM advanced
        RETURNING seq
    )
    SELECT pg_notify('chat', :room || ':' || seq) FROM inserted""")


def append_alone_in_one(connection: Connection, draft: Draft) -> None:
    """Store one message in its own transaction, with its own NOTIFY, in one round trip besides BEGIN and COMMIT."""
    values = {"room": draft.room, "id": draft.id, "author": draft.author, "text": draft.text}
    connection.execute(IN_ONE, values)


async def measure_throughput(url: str, *, senders: int = 100, seconds: float = 2.0, pairs: int = 5) -> None:
    numbers = iter(range(10**9))
    rooms = [f"room-{number}" for number in range(10)]
    async with (
        open_database(PlatformSettings(database_url=url, database_queue_wait=60)) as database,
        trio.open_nursery() as nursery,
    ):
        writer = Writer(database, lambda _: None)
        nursery.start_soon(writer.run)
        for room in rooms:
            first = Draft(room=room, id="first", author="bench", text="first")
            await database.run(store.append_waiting, [first], lock_timeout=1)

        async def batched(draft: Draft) -> None:
            assert (await writer.post(draft)).type == "ack"

        async def alone(draft: Draft) -> None:
            await database.run(append_alone, draft)

        async def alone_in_one(draft: Draft) -> None:
            await database.run(append_alone_in_one, draft)

        async def run(send: Callable[[Draft], Awaitable[None]]) -> float:
            done = 0

            async def sender(room: str) -> None:
                nonlocal done
                while True:
                    await send(Draft(room=room, id=f"b{next(numbers)}", author="bench", text="x" * 100))
                    done += 1

            with trio.move_on_after(seconds):
                async with trio.open_nursery() as crowd:
                    for number in range(senders):
                        crowd.start_soon(sender, rooms[number % len(rooms)])
            return done / seconds

        await run(batched)
        found = [(await run(batched), await run(alone), await run(alone_in_one)) for _ in range(pairs)]
        nursery.cancel_scope.cancel()
    for column, form in ((1, "statement after statement"), (2, "all in one statement")):
        each = [(row[0], row[column]) for row in found]
        ratio = statistics.median(ours / theirs for ours, theirs in each)
        tell(
            f"throughput, {senders} senders: {ratio:.1f}x a transaction and NOTIFY per message, {form} ({shown(each)})"
        )


# fan-out: deliveries for a second of the server's CPU

FASTAPI = """
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
app = FastAPI()
connections = []
@app.websocket("/ws")
async def converse(websocket: WebSocket):
    await websocket.accept()
    connections.append(websocket)
    try:
        while True:
            text = await websocket.receive_text()
            for connection in connections:
                await connection.send_text(text)
    except WebSocketDisconnect:
        connections.remove(websocket)
"""


@asynccontextmanager
async def fastapi(directory: Path) -> AsyncIterator[tuple[int, str]]:
    """Serve the loop of FastAPI's documentation on uvicorn; yield its pid and URL."""
    (directory / "plain.py").write_text(FASTAPI)
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "plain:app", "--port", str(port), "--log-level", "critical"]
    process = await trio.lowlevel.open_process(command, cwd=directory)
    try:
        url = f"http://127.0.0.1:{port}"
        await wait_open(url)
        yield process.pid, url
    finally:
        process.kill()
        await process.wait()


async def fan_out(
    pid: int, url: str, *, members: int, messages: int, stalled: int = 0, limit: float = 30
) -> tuple[float, float, int]:
    """Return deliveries, CPU seconds and growth in KiB while one member sends and the others, but for some, read."""
    message = "x" * 200
    readers, size, got = members - stalled, len(message) + 4, 0

    async def drain(line: RawWebsocket, counts: int) -> None:
        nonlocal got
        while data := await line.stream.receive_some(65_536):  # counted, not parsed: the server is to be measured
            got += counts * len(data)

    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        for number in range(members):
            line = await stack.enter_async_context(open_raw(url, protocol=None, limit=30))
            if number >= stalled:
                nursery.start_soon(drain, line, 1)
        sender = await stack.enter_async_context(open_raw(url, protocol=None))
        nursery.start_soon(drain, sender, 0)
        await trio.sleep(1)
        got, cpu, memory = 0, cpu_seconds(pid), resident_kib(pid)
        with trio.move_on_after(limit):
            for number in range(1, messages + 1):
                await sender.send(message)
                while got < (number - WINDOW) * readers * size:  # noqa: ASYNC110  read often
                    await trio.sleep(0.002)
            while got < messages * readers * size:  # noqa: ASYNC110  read often
                await trio.sleep(0.002)
        found = got / size, cpu_seconds(pid) - cpu, resident_kib(pid) - memory
        nursery.cancel_scope.cancel()
    return found


async def measure_fan_out(url: str, directory: Path, *, members: int = 1_000, messages: int = 200) -> None:
    pairs: list[tuple[float, float]] = []
    async with ready(directory, "serve", database_url=url, **UNLIMITED) as ours, fastapi(directory) as plain:
        mine = ours.process.pid, ours.public
        for _ in range(5):
            a = await fan_out(*mine, members=members, messages=messages)
            b = await fan_out(*plain, members=members, messages=messages)
            pairs.append((a[0] / a[1], b[0] / b[1]))
        ratio = statistics.median(a / b for a, b in pairs)
        tell(f"fan-out to {members}: {ratio:.2f}x the deliveries per CPU second of FastAPI's loop ({shown(pairs)})")
        for name, where in (("ours", mine), ("FastAPI's loop", plain)):
            got, _, grown = await fan_out(*where, members=100, messages=20_000, stalled=1, limit=15)
            tell(
                f"  1 of 100 stalled, 20,000 texts, 15 s: {name} delivered {got / (99 * 20_000):.0%}, grew {grown} KiB"
            )


async def measure_beside_node(url: str, directory: Path) -> None:
    if not (shutil.which("node") and shutil.which("npm")):
        tell("fan-out beside Node: left out, as it wants `node` and `npm`")
        return
    async with ready(directory, "serve", database_url=url, **UNLIMITED) as ours:
        mine = ours.process.pid, int(ours.public.rpartition(":")[2])
        await trio.to_thread.run_sync(bench_node.measure, url, directory, mine, tell)


# stall: what the others notice when some stop reading


async def measure_stall(url: str, directory: Path) -> None:
    async with ready(directory, "serve", database_url=url, **UNLIMITED) as service, fastapi(directory) as (_, plain):
        found = await compare(service.public, **CROWD, pairs=3)
        loop = await deliver(plain, **CROWD | MORE, protocol=None)
    ours = [beside for _, beside in found]
    tell(f"  let go, and complete again after a resume: {min(each.complete for each in ours)} of {CROWD['stalled']}")
    tell(f"  the others got {min(each.share for each in ours):.0%} of {CROWD['messages']}")
    tell(f"  from FastAPI's loop they got {loop.share:.0%} of {MORE['messages']}, and then nothing more")


# idle: what a member costs that says nothing; storm: everybody comes back at once


async def measure_idle(url: str, directory: Path, *, members: int = 10_000) -> None:
    async with ready(directory, "serve", database_url=url, **UNLIMITED) as service, AsyncExitStack() as stack:
        pid = service.process.pid
        before, begun = resident_kib(pid), time.perf_counter()
        await open_many(stack, service.public, members)
        took = time.perf_counter() - begun
        await trio.sleep(5)
        used, cpu = resident_kib(pid) - before, cpu_seconds(pid)
        await trio.sleep(5)
        per_second = (cpu_seconds(pid) - cpu) / 5
        tell(f"{members} idle: {used / members:.1f} KiB each, {per_second:.1%} of a core, open after {took:.0f} s")


async def measure_storm(url: str, directory: Path, *, members: int = 2_000, missed: int = 50) -> None:
    """Kill the replica under its members, write meanwhile, and let all of them resume as soon as it is back."""
    async with (
        ready(directory, "serve", name="first", database_url=url, **UNLIMITED) as first,
        AsyncExitStack() as stack,
    ):
        lines = await open_many(stack, first.public, members)
        joined = await lines[0].expect("joined")
        first.process.kill()
    async with ready(directory, "serve", name="second", database_url=url, **UNLIMITED) as again:
        await write(again.public, missed)
        since = {"epoch": joined["epoch"], "seq": joined["from"]}
        returns = await come_back(again, members=members, since=since, missed=missed)
        tell(f"{members} resumes of {missed} messages: over in {returns.seconds:.1f} s, {dict(returns.answers)}")


async def wait_open(url: str) -> None:
    with trio.fail_after(20):
        while True:
            try:
                async with open_raw(url, protocol=None):
                    return
            except OSError:
                await trio.sleep(0.1)


def main(names: Sequence[str] = ()) -> None:
    measures: dict[str, Callable[[str, Path], Awaitable[None]]] = {
        "throughput": lambda url, _: measure_throughput(url),
        "fanout": measure_fan_out,
        "node": measure_beside_node,
        "stall": measure_stall,
        "idle": measure_idle,
        "storm": measure_storm,
    }
    with tempfile.TemporaryDirectory() as directory, open_embedded(Path(directory) / "data") as server:
        migrate(PlatformSettings(database_url=server.url), wait=10)
        for name in names or measures:
            working = Path(directory) / name
            working.mkdir()
            trio.run(measures[name], server.url, working)


if __name__ == "__main__":
    main(sys.argv[1:])
