"""Workers as real processes, faults done to them and to PostgreSQL, and whether J1 to J6 held.

Everything that is random follows from one seed; the order in which processes act does not, so a seed is a story and
not a recording.
"""

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, LiteralString

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
from service.platform.testing.place import Place
from tests.platform.database.proxy import Proxy, open_proxy
from tests.platform.jobs import worker_program as program
from tests.platform.jobs.clocks import Clock, find_library, given_clock

HEAL = 60.0  # seconds for all that waits to be finished, once nothing is broken any more
PAST_LEASE = 5.0
WITHIN = 5.0 + 1  # seconds until a worker that is gone is replaced: J4, and a busy machine
JUMPS = (-3_600, -7, 7, 3_600)  # seconds
SETTINGS: dict[str, Any] = {
    "jobs_concurrency": program.PARALLEL,
    "graceful_timeout": 2,
    "request_deadline": 2,
    "drain_delay": 0,
    "drain_spread": 0,
}
MIX = ("quick",) * 6 + ("contended",) * 3 + ("slow", "parent", "outside", "outside", "alone", "hopeless", "hanging")
UNFINISHED = "SELECT id, kind, state, failures, error FROM job WHERE state IN ('waiting', 'running')"
FAULTS = (
    "kill", "freeze", "term", "terminate", "crash", "restart", "rescue", "stop_server", "cut", "mute", "jump", "skew",
)  # fmt: skip
BESIDE = """
    SELECT one.number, other.number AS other FROM turn one JOIN turn other ON one.number < other.number
    WHERE NOT pg_visible_in_snapshot(one.transaction, other.seen)
        AND NOT pg_visible_in_snapshot(other.transaction, one.seen)"""
HELD = "SELECT id FROM job WHERE state = 'running' AND worker LIKE '%%-' || %s || '-%%'"


@dataclass
class Story:
    """What was asked for, what was done, and what came of it."""

    seed: int
    within: float  # seconds until what a worker held has to be another's
    acknowledged: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    children: dict[int, list[int]] = field(default_factory=dict)
    kinds: dict[int, str] = field(default_factory=dict)
    done: Counter[str] = field(default_factory=Counter)
    replaced: list[float] = field(default_factory=list)  # seconds until what a worker held was another's


class Worker(Place):
    """One worker of the cluster, behind a proxy of its own, and under a clock of its own where there can be one."""

    def __init__(self, directory: Path, proxy: Proxy, bug: str, clock: Clock | None) -> None:
        prefix = clock.prefix if clock else ()
        command = (*prefix, sys.executable, "-m", "tests.platform.jobs.worker_program", *([bug] if bug else []))
        super().__init__(directory, "work", command=command, database_url=proxy.url(), **SETTINGS)
        self.proxy = proxy
        self.clock = clock

    def lines(self) -> Iterator[str]:
        for log in self.logs:
            yield from log.read_text().splitlines()


@dataclass
class Faults:
    """Done to `workers` and to the server, one after the other."""

    server: OwnServer
    clock: Clock | None
    workers: Sequence[Worker]
    story: Story
    chance: random.Random
    thread: Executor

    async def _apart[**P](self, function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Run on a thread that lasts: the kernel stops a server when the thread ends that has started it."""
        await trio.to_thread.run_sync(lambda: self.thread.submit(function, *args, **kwargs).result())

    async def do(self, name: str) -> None:
        await getattr(self, name)(self.chance.choice(self.workers))

    async def kill(self, place: Worker) -> None:
        await self._others_ready(place)
        pid = place.pid
        await place.end(signal.SIGKILL)
        place.launch()
        await self._replaced(pid)

    async def term(self, place: Worker) -> None:
        assert place.process is not None
        await place.process.wait_ready()  # else there is nothing to drain
        code = await place.end(signal.SIGTERM, 30)
        assert code == 0, f"a drain ended with {code}"
        place.launch()

    async def freeze(self, place: Worker) -> None:
        await self._others_ready(place)
        place.send(signal.SIGSTOP)
        begun = trio.current_time()
        await self._replaced(place.pid)
        await trio.sleep(max(0, begun + PAST_LEASE - trio.current_time()))
        place.send(signal.SIGCONT)

    async def _others_ready(self, place: Worker) -> None:
        """Wait until there is somebody to replace one that goes, and a server to say so."""
        await self._answering()
        for other in self.workers:
            if other is not place and other.process is not None:
                await other.process.wait_ready()

    async def _answering(self) -> None:
        """Wait until the server has come back from the fault before."""
        with trio.fail_after(HEAL):
            while self._answers("SELECT 1") is None:
                await trio.sleep(0.05)

    async def _replaced(self, pid: int) -> None:
        """Wait until nothing is held any more by a process that has just gone, and note how long that took."""
        begun = trio.current_time()
        with trio.move_on_after(2 * self.story.within):  # which is a violation, and told as one
            while self._answers(HELD, pid) != []:
                await trio.sleep(0.05)
        self.story.replaced.append(trio.current_time() - begun)

    def _answers(self, query: LiteralString, *values: object) -> list[Any] | None:
        """Return what a query finds, or None where the server is away just now."""
        try:
            with self.connect() as connection:
                return connection.execute(query, values).fetchall()
        except psycopg.OperationalError:
            return None

    async def terminate(self, _: Worker) -> None:
        await self._answering()
        with self.connect() as connection:
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    async def crash(self, _: Worker) -> None:
        """Kill one of the server's processes: it ends all others and recovers."""
        await self._answering()
        with self.connect() as connection:
            query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            pids = [row[0] for row in connection.execute(query)]
        if pids:
            os.kill(self.chance.choice(pids), signal.SIGKILL)

    async def restart(self, _: Worker) -> None:
        how: Literal["fast", "immediate"] = self.chance.choice(("fast", "immediate"))
        await self._apart(self.server.restart, how)

    async def rescue(self, place: Worker) -> None:
        """Restart the server just when others rescue what a killed worker held."""
        await place.end(signal.SIGKILL)
        await trio.sleep(self.chance.uniform(2.5, 4.5))
        await self.restart(place)
        place.launch()

    async def stop_server(self, _: Worker) -> None:
        await self._apart(self.server.stop)
        await trio.sleep(self.chance.uniform(0.5, 4))
        await self._apart(self.server.start)

    async def cut(self, place: Worker) -> None:
        place.proxy.cut()
        await trio.lowlevel.checkpoint()

    async def mute(self, place: Worker) -> None:
        """A network that swallows everything, for longer than a lease."""
        place.proxy.silent = True
        place.proxy.mute()
        await trio.sleep(PAST_LEASE)
        place.proxy.silent = False
        place.proxy.cut()

    async def jump(self, _: Worker) -> None:
        """Put the server's clock forward or back, with what waits and what is leased by it; and later right again."""
        if self.clock is not None:
            await self._answering()
            seconds = self.chance.choice(JUMPS)
            self.clock.jump(seconds)
            assert abs(seconds - self._ahead()) < 3, f"the server's clock did not jump by {seconds} s"
            await trio.sleep(PAST_LEASE)
            self.clock.jump(0)

    def _ahead(self) -> float:
        """Return by how many seconds the server's clock is ahead."""
        (row,) = _rows(self.server, "SELECT CAST(EXTRACT(epoch FROM clock_timestamp()) AS float8) AS now")
        return float(row["now"]) - time.time()

    async def skew(self, place: Worker) -> None:
        if place.clock is not None:
            place.clock.jump(self.chance.choice(JUMPS))
            await trio.sleep(PAST_LEASE)
            place.clock.jump(0)

    def connect(self) -> Connection[Any]:
        return psycopg.connect(self.server.tcp_url.replace("+psycopg", ""), autocommit=True)


async def check(
    directory: Path, server: OwnServer, *, seed: int, workers: int = 2, faults: Sequence[str] = FAULTS, jobs: int = 150,
    bug: str = "",
    heal: float = HEAL,
    within: float = WITHIN,
    mix: Sequence[str] = MIX,
) -> list[str]:  # fmt: skip
    """Tell one story; return what was violated."""
    chance = random.Random(seed)
    story = Story(seed, within)
    settings = PlatformSettings(database_url=server.tcp_url)
    async with open_database(settings) as database, trio.open_nursery() as nursery:
        await database.run(program.create_tables)
        places: list[Worker] = []
        library = find_library() if {"jump", "skew"} & {*faults} else None
        with ExitStack() as stack:
            thread = stack.enter_context(ThreadPoolExecutor(1))
            stack.callback(server.restart)  # by a thread that lasts longer
            clock = stack.enter_context(given_clock(server, directory, library)) if library else None
            for number in range(workers):
                proxy = await nursery.start(_proxied, server.port)
                own = Clock(directory / f"offset{number}", library) if library else None
                place = stack.enter_context(closing(Worker(directory / f"worker{number}", proxy, bug, own)))
                place.launch()
                places.append(place)
            async with trio.open_nursery() as telling:
                telling.start_soon(_ask_for, database, story, chance, jobs, mix)
                await trio.sleep(2)
                todo = [*faults]
                chance.shuffle(todo)
                doing = Faults(server, clock, places, story, chance, thread)
                for fault in todo:
                    print(f"{trio.current_time():.1f} {fault}")
                    await doing.do(fault)
                    story.done[fault] += 1
                    await trio.sleep(chance.uniform(0, 2))
            problems = await _settled(server, heal)
            problems += list(_violations(server, story))
            late = [seconds for seconds in story.replaced if seconds > within]
            problems += [f"J4: what a worker held was another's after {seconds:.1f} s" for seconds in late]
            problems += [line for place in places for line in place.lines() if '"crashed"' in line]
            print("replaced after", ", ".join(f"{seconds:.1f} s" for seconds in story.replaced))
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
    for row in _rows(server, BESIDE):
        yield f"limit: {row['number']} ran beside {row['other']}"
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
