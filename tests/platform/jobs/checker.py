"""Workers as real processes, faults done to them and to PostgreSQL, and whether J1 to J6 held.

Everything that is random follows from one seed; the order in which processes act does not, so a seed is a story and
not a recording.
"""

import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psycopg
import trio
import trio.lowlevel
from psycopg import Connection
from psycopg.rows import dict_row

from service.platform.database import Database, open_database
from service.platform.errors import OutcomeUnknown, Unavailable
from service.platform.jobs import Job, enqueue
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import Process, started
from tests.platform.database.proxy import Proxy, open_proxy
from tests.platform.jobs import worker_program as program

HEAL = 60.0  # seconds for all that waits to be finished, once nothing is broken any more
PAST_LEASE = 5.0
MIX = ("quick",) * 6 + ("contended",) * 3 + ("slow", "parent", "outside", "outside", "alone", "hopeless", "hanging")
UNFINISHED = "SELECT id, kind, state, failures, error FROM job WHERE state IN ('waiting', 'running')"
FAULTS = ("kill", "freeze", "term", "terminate", "crash", "restart", "rescue", "stop_server", "cut", "mute")


@dataclass
class Story:
    """What was asked for, what was done, and what came of it."""

    seed: int
    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    children: dict[int, list[int]] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)


class Place:
    """One worker of the cluster, and the process that is it at the moment; behind a proxy of its own."""

    def __init__(self, directory: Path, proxy: Proxy, bug: str) -> None:
        self._directory, self._scope, self._bug = directory, ExitStack(), bug
        self.proxy = proxy
        self.process: Process | None = None
        self._starts = 0

    def start(self) -> None:
        self._starts += 1
        directory = self._directory / str(self._starts)
        directory.mkdir(parents=True)
        command = [sys.executable, "-m", "tests.platform.jobs.worker_program", *([self._bug] if self._bug else [])]
        settings: dict[str, Any] = {
            "database_url": self.proxy.url(),
            "jobs_concurrency": program.PARALLEL,
            "graceful_timeout": 2,
            "request_deadline": 2,
            "drain_delay": 0,
            "drain_spread": 0,
        }
        self.process = self._scope.enter_context(started(directory, "work", command=command, **settings))

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.process.poll() is None:
            self.process.send(number)

    async def end(self, number: signal.Signals) -> int:
        assert self.process is not None
        self.send(number)
        return await self.process.wait_end(30)

    def close(self) -> None:
        self._scope.close()

    def logs(self) -> Iterator[str]:
        for log in sorted(self._directory.glob("*/*.log")):
            yield from log.read_text().splitlines()


class Faults:
    def __init__(self, server: OwnServer, places: Sequence[Place], chance: random.Random) -> None:
        self._server, self._places, self._chance = server, places, chance

    async def do(self, name: str) -> None:
        await getattr(self, name)(self._chance.choice(self._places))

    async def kill(self, place: Place) -> None:
        await place.end(signal.SIGKILL)
        place.start()

    async def term(self, place: Place) -> None:
        assert place.process is not None
        await place.process.wait_ready()  # else there is nothing to drain
        code = await place.end(signal.SIGTERM)
        assert code == 0, f"a drain ended with {code}"
        place.start()

    async def freeze(self, place: Place) -> None:
        place.send(signal.SIGSTOP)
        await trio.sleep(PAST_LEASE)
        place.send(signal.SIGCONT)

    async def terminate(self, _: Place) -> None:
        with self.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    async def crash(self, _: Place) -> None:
        """Kill one of the server's processes: it ends all others and recovers."""
        with self.connect() as connection:
            query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            pids = [row[0] for row in connection.execute(query)]
        if pids:
            os.kill(self._chance.choice(pids), signal.SIGKILL)

    async def restart(self, _: Place) -> None:
        how: Literal["fast", "immediate"] = self._chance.choice(("fast", "immediate"))
        await trio.to_thread.run_sync(self._server.restart, how)

    async def rescue(self, place: Place) -> None:
        """Restart the server just when others rescue what a killed worker held."""
        await place.end(signal.SIGKILL)
        await trio.sleep(self._chance.uniform(2.5, 4.5))
        await self.restart(place)
        place.start()

    async def stop_server(self, _: Place) -> None:
        await trio.to_thread.run_sync(self._server.stop)
        await trio.sleep(self._chance.uniform(0.5, 4))
        await trio.to_thread.run_sync(self._server.start)

    async def cut(self, place: Place) -> None:
        place.proxy.cut()
        await trio.lowlevel.checkpoint()

    async def mute(self, place: Place) -> None:
        """A network that swallows everything, for longer than a lease."""
        place.proxy.silent = True
        place.proxy.mute()
        await trio.sleep(PAST_LEASE)
        place.proxy.silent = False
        place.proxy.cut()

    def connect(self) -> Connection[Any]:
        return psycopg.connect(self._server.tcp_url.replace("+psycopg", ""), autocommit=True)


async def check(
    directory: Path, server: OwnServer, *, seed: int, workers: int = 2, faults: Sequence[str] = FAULTS, jobs: int = 150,
    bug: str = "",
    heal: float = HEAL,
    mix: Sequence[str] = MIX,
) -> list[str]:  # fmt: skip
    """Tell one story; return what was violated."""
    chance = random.Random(seed)
    story = Story(seed)
    settings = PlatformSettings(database_url=server.tcp_url)
    async with open_database(settings) as database, trio.open_nursery() as nursery:
        await database.run(program.create_tables)
        places: list[Place] = []
        with ExitStack() as stack:
            for number in range(workers):
                proxy = await nursery.start(_proxied, server.port)
                place = Place(directory / f"worker{number}", proxy, bug)
                stack.callback(place.close)
                place.start()
                places.append(place)
            async with trio.open_nursery() as telling:
                telling.start_soon(_ask_for, database, story, chance, jobs, mix)
                await trio.sleep(2)
                todo = [*faults]
                chance.shuffle(todo)
                doing = Faults(server, places, chance)
                for fault in todo:
                    print(f"{trio.current_time():.1f} {fault}")
                    await doing.do(fault)
                    story.done[fault] += 1
                    await trio.sleep(chance.uniform(0, 2))
            problems = await _settled(server, heal)
            problems += list(_violations(server, story))
            problems += [line for place in places for line in place.logs() if '"crashed"' in line]
        nursery.cancel_scope.cancel()
    return problems


async def _proxied(target: int, task_status: trio.TaskStatus[Proxy]) -> None:
    async with open_proxy(target) as proxy:
        task_status.started(proxy)
        await trio.sleep_forever()


async def _ask_for(database: Database, story: Story, chance: random.Random, jobs: int, mix: Sequence[str]) -> None:
    number = 0
    while number < jobs:
        number += 1
        job, arguments = _pick(chance, number, story, mix)
        story.kinds[number] = job.name
        try:
            with trio.fail_after(5):
                await database.run(enqueue, job, **arguments)
        except OutcomeUnknown:
            story.unknown.add(number)
        except (Unavailable, trio.TooSlowError):
            story.refused.add(number)
        else:
            story.acknowledged.add(number)
        await trio.sleep(chance.uniform(0, 0.25))


def _pick(chance: random.Random, number: int, story: Story, mix: Sequence[str]) -> tuple[Job[...], dict[str, Any]]:
    which = chance.choice(mix)
    arguments: dict[str, Any] = {"number": number}
    if which in {"slow", "outside"}:
        arguments["seconds"] = chance.uniform(0.1, 5)
    if which == "parent":
        story.children[number] = arguments["children"] = [number * 1000 + child for child in range(3)]
    return getattr(program, which), arguments


async def _settled(server: OwnServer, seconds: float) -> list[str]:
    """Wait until nothing waits or runs; a job that failed may wait for its next attempt for some time."""
    with trio.move_on_after(seconds):
        while True:
            left = _rows(
                server, "SELECT id, kind, state, failures, error FROM job WHERE state IN ('waiting', 'running')"
            )
            if not left:
                return []
            hurry = "UPDATE job SET run_at = now() WHERE state = 'waiting' AND run_at > now()"
            _rows(server, hurry)
            await trio.sleep(0.25)
    return [f"J2: {row} is not finished {seconds:g} s after the last fault" for row in left]


def _violations(server: OwnServer, story: Story) -> Iterator[str]:
    rows = _rows(server, "SELECT id, kind, state, arguments FROM job")
    states = {row["arguments"]["number"]: (row["kind"], row["state"]) for row in rows}
    effects = Counter(row["number"] for row in _rows(server, "SELECT number FROM effect WHERE how = 'sql'"))
    outside = Counter(row["number"] for row in _rows(server, "SELECT number FROM effect WHERE how = 'outside'"))
    for row in _rows(server, "SELECT number FROM effect WHERE how = 'beside another'"):
        yield f"limit: {row['number']} ran beside another"
    for number in sorted(story.acknowledged - states.keys()):
        yield f"J1: {story.kinds[number]} {number} was acknowledged and is not there"
    for number in sorted(story.refused & states.keys()):
        yield f"J1: {story.kinds[number]} {number} was refused and is there"
    for number, (kind, state) in states.items():
        hopeless = kind in {"hopeless", "hanging"}
        if hopeless and state != "dead":
            yield f"J2: {kind} {number} is {state}, and can never be done"
        if not hopeless and state != "done":
            yield f"J2: {kind} {number} is {state}"
        if kind == "outside" and state == "done" and not outside[number]:
            yield f"J2: {kind} {number} is done and was never run"
        if kind not in {"outside", "hanging"} and effects[number] != (0 if hopeless else 1):
            yield f"J3: {kind} {number}, {state}, has {effects[number]} effects"
        if kind == "parent" and state == "done":
            missing = [child for child in story.children.get(number, []) if child not in states]
            if missing:
                yield f"J1: {number} is done and its children {missing} are not there"
    (tally,) = _rows(server, "SELECT value FROM tally")
    contended = sum(kind == "contended" and state == "done" for kind, state in states.values())
    if tally["value"] != contended:
        yield f"J3: {contended} jobs counted to {tally['value']}"


def _rows(server: OwnServer, query: str) -> list[dict[str, Any]]:
    with psycopg.connect(server.tcp_url.replace("+psycopg", ""), autocommit=True, row_factory=dict_row) as connection:
        cursor = connection.execute(query)
        return list(cursor) if cursor.description else []
