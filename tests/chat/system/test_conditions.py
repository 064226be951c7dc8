"""Whatever a database says for a while: no process ends, websockets stay, clients are told, and all is well soon after.

The reads and sends of members meet it, and so do all tasks beside the requests, of the platform and of the chat.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import Process, ready
from service.platform.testing.wire import RawWebsocket
from tests.chat.frames import open_raw
from tests.chat.system.conditions import CONDITIONS, Condition, World

SOON = 5.0  # seconds from the end of the cause
ANSWER = 3.5  # seconds in which a send is answered: promised are 3
QUICK = {
    "drain_delay": 0, "drain_spread": 0.2, "request_deadline": 2, "rate_per_connection": 0, "rate_per_address": 0,
}  # fmt: skip


class Seat:
    """A member that stays on one websocket all the time, and a client of the same replica's HTTP."""

    def __init__(self, process: Process, line: RawWebsocket, client: httpx2.AsyncClient) -> None:
        self.process = process
        self.client = client
        self._line = line
        self._sent = 0
        self._answers: dict[str, tuple[str, float]] = {}

    async def read(self) -> None:
        while True:
            frame = await self._line.frame()  # raises when the websocket is closed, which fails the test
            if frame["type"] in {"ack", "error"} and "id" in frame:
                self._answers[frame["id"]] = str(frame.get("code", "ack")), trio.current_time()

    async def send(self) -> str:
        """Send a message; return `ack`, or the code of the refusal."""
        self._sent += 1
        await self._line.send({"type": "send", "room": "lobby", "id": str(self._sent), "text": "hello"})
        with trio.fail_after(ANSWER):
            while (answer := self._answers.get(str(self._sent))) is None:
                await trio.sleep(0.02)
        return answer[0]

    async def get(self) -> tuple[int, bool]:
        response = await self.client.get(f"{self.process.public}/api/rooms/lobby/messages")
        return response.status_code, "retry-after" in response.headers

    async def health(self) -> dict[str, Any]:
        response = await self.client.get(f"{self.process.management}/healthz")
        checks: dict[str, Any] = response.json()["checks"]
        return {name: check["state"] for name, check in checks.items() if not check["ok"]}

    async def well(self) -> bool:
        return await self.send() == "ack" and (await self.get())[0] == 200 and not await self.health()


@asynccontextmanager
async def seated(directory: Path, world: World, replicas: int) -> AsyncIterator[list[Seat]]:
    async with trio.open_nursery() as nursery, open_seat(directory / "1", world) as first:
        nursery.start_soon(first.read)
        if replicas == 1:
            yield [first]
        else:
            async with open_seat(directory / "2", world) as second:
                nursery.start_soon(second.read)
                yield [first, second]
                nursery.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_seat(directory: Path, world: World) -> AsyncIterator[Seat]:
    directory.mkdir()
    given = {"database_url": world.url, "database_password_file": world.password_file}
    async with (
        ready(directory, "serve", **given, **QUICK) as process,
        httpx2.AsyncClient(timeout=10) as client,
        open_raw(process.public, "/ws?name=ann") as line,
    ):
        await line.send({"type": "join", "room": "lobby", "ref": "r"})
        await line.expect("joined")
        yield Seat(process, line, client)


async def endure(condition: Condition, world: World, seats: list[Seat]) -> str:
    """Bring the condition about, look what clients see, end it; return a line for people."""
    condition.begin(world)
    sent, got = [await seat.send() for seat in seats], [await seat.get() for seat in seats]
    told = await wait_told(seats) if not condition.sends else {}
    if condition.sends:
        await wait_well(seats)
    else:
        assert set(sent) == {"unavailable"}, (condition.name, sent)
    if condition.reads and not condition.sends:
        assert await wait_status(seats, 200), condition.name
    condition.end(world)
    took = await wait_well(seats)
    for seat in seats:
        assert seat.process.process.poll() is None, seat.process.log.read_text()[-3000:]
    return f"| {condition.name} | {sent[0]} | {got[0][0]} | {', '.join(told) or 'ok'} | {took:.1f} s |"


async def wait_told(seats: list[Seat]) -> dict[str, Any]:
    """Return what `/healthz` says once each replica's says something."""
    with trio.fail_after(20):
        while not all(found := [await seat.health() for seat in seats]):
            await seats[0].send()
    return found[0]


async def wait_status(seats: list[Seat], wanted: int) -> bool:
    with trio.move_on_after(SOON):
        while {(await seat.get())[0] for seat in seats} != {wanted}:
            await trio.sleep(0.05)
        return True
    return False


async def wait_well(seats: list[Seat]) -> float:
    begun = trio.current_time()
    with trio.move_on_after(2 * SOON):
        while not all([await seat.well() for seat in seats]):
            await trio.sleep(0.1)
    took = trio.current_time() - begun
    assert took < SOON, [await seat.health() for seat in seats]
    return took


async def run_through(directory: Path, server: OwnServer, conditions: tuple[Condition, ...], replicas: int) -> None:
    migrate(PlatformSettings(database_url=server.url), wait=10)
    world = World(server, directory / "password")
    world.prepare()
    async with seated(directory, world, replicas) as seats:
        assert [await seat.send() for seat in seats] == ["ack"] * replicas
        for condition in conditions:
            sys.stdout.write(await endure(condition, world, seats) + "\n")
        for seat in seats:
            lines = seat.process.events("background task failing")
            assert len(lines) < 20 * len(conditions), "a line for each text, not for each failure"


async def test_a_chat_bears_what_a_database_says(tmp_path: Path, newest_server: OwnServer) -> None:
    wanted = ("42P01", "42501", "25006")
    conditions = tuple(each for each in CONDITIONS if each.name.startswith(wanted))
    with trio.fail_after(120):
        await run_through(tmp_path, newest_server, conditions, replicas=1)


async def test_a_service_that_starts_on_a_standby_serves_reads(tmp_path: Path, newest_server: OwnServer) -> None:
    migrate(PlatformSettings(database_url=newest_server.url), wait=10)
    newest_server.become_standby()
    with trio.fail_after(60):
        async with (
            ready(tmp_path, "serve", database_url=newest_server.tcp_url, **QUICK) as process,
            httpx2.AsyncClient(timeout=10) as client,
        ):
            url = f"{process.public}/api/rooms/lobby/messages"
            read, written = await client.get(url), await client.post(url, json={"text": "hello"})
            checks = (await client.get(f"{process.management}/healthz")).json()["checks"]
            newest_server.promote()
            with trio.fail_after(SOON):
                while (await client.post(url, json={"text": "hello"})).status_code != 201:
                    await trio.sleep(0.05)

            assert (read.status_code, written.status_code) == (200, 503)
            assert "is a standby, takes no writes" in written.json()["detail"]
            assert checks["database"]["state"] == "the database is a standby, takes no writes"
            assert process.process.poll() is None


@pytest.mark.drill
@pytest.mark.parametrize("replicas", [1, 2])
async def test_a_chat_bears_all_that_a_database_can_say(
    tmp_path: Path, newest_server: OwnServer, replicas: int
) -> None:
    with trio.fail_after(600):
        await run_through(tmp_path, newest_server, CONDITIONS, replicas)
