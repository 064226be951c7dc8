"""Workers as processes: what a kill, a freeze and a SIGTERM do to a job that runs, and how soon it runs elsewhere."""

import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from sqlalchemy import Connection, text

from service.platform.database import Database, open_database
from service.platform.jobs import enqueue, statistics
from service.platform.settings import PlatformSettings
from service.platform.testing.processes import Process, ready, run_to_end
from tests.platform.jobs import worker_program as program

PROGRAM = (sys.executable, "-m", "tests.platform.jobs.worker_program")
LIMIT = 60
WITHIN = 5.0  # seconds: J4


@asynccontextmanager
async def working(
    directory: Path, url: str, *, verb: str = "work", **settings: Any
) -> AsyncIterator[tuple[Database, Process]]:
    """Yield a door to the database and a worker."""
    async with open_database(PlatformSettings(database_url=url)) as database:
        await database.run(program.create_tables)
        async with ready_worker(directory, url, "first", verb, **settings) as first:
            with trio.fail_after(LIMIT):
                yield database, first


def ready_worker(
    directory: Path, url: str, name: str, verb: str = "work", **settings: Any
) -> AbstractAsyncContextManager[Process]:
    given = {"database_url": url, "drain_delay": 0, "drain_spread": 0, "jobs_concurrency": 2} | settings
    return ready(directory, verb, command=PROGRAM, name=name, **given)


@asynccontextmanager
async def replaceable(
    directory: Path, url: str, *, verb: str = "work", seconds: float = 30, **settings: Any
) -> AsyncIterator[tuple[Database, Process, int]]:
    """Yield a door, a worker and the job that it runs; another worker waits for work, and was not there to take it."""
    async with working(directory, url, verb=verb, **settings) as (database, first):
        one = await database.run(enqueue, program.slow, number=1, seconds=seconds)

        async def runs() -> bool:
            return (await database.read(claims, one))[1] == "running" and await database.read(backends_asleep) > 0

        await until(runs)
        async with ready_worker(directory, url, "second", **settings):
            yield database, first, one


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    while not await look():
        await trio.sleep(0.01)


def claims(connection: Connection, id: int) -> tuple[int, str, int]:
    row = connection.execute(text("SELECT claim, state, failures FROM job WHERE id = :id"), {"id": id}).one()
    return row.claim, row.state, row.failures


def backends_asleep(connection: Connection) -> int:
    query = text("""
        SELECT count(*) FROM pg_stat_activity
        WHERE query LIKE '%pg_sleep(%' AND state = 'active' AND pid <> pg_backend_pid()""")
    return int(connection.execute(query).scalar_one())


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
async def test_a_worker_that_is_gone_is_replaced(
    tmp_path: Path, writable_database_url: str, how: signal.Signals
) -> None:
    async with replaceable(tmp_path, writable_database_url) as (database, first, one):
        begun = trio.current_time()
        first.send(how)

        async def again() -> bool:
            return await database.read(claims, one) == (2, "running", 1)

        await until(again)
        seconds = trio.current_time() - begun
        first.send(signal.SIGKILL)

    print(f"{how.name}: replaced after {seconds:.2f} s")
    assert seconds < WITHIN + 1  # and a busy machine's


@pytest.mark.parametrize("verb", ["work", "serve"])
async def test_a_drain_hands_back_a_long_job_unspent_and_its_query_is_gone(
    tmp_path: Path, writable_database_url: str, verb: str
) -> None:
    given = {"graceful_timeout": 1, "request_deadline": 1}
    async with replaceable(tmp_path, writable_database_url, verb=verb, seconds=60, **given) as (database, first, one):
        begun = trio.current_time()
        first.send(signal.SIGTERM)
        code = await first.wait_end()
        seconds = trio.current_time() - begun

        async def elsewhere() -> bool:
            return await database.read(claims, one) == (2, "running", 0)

        await until(elsewhere)

        async def once() -> bool:
            return await database.read(backends_asleep) == 1

        await until(once)  # the first worker's query is gone from the server

    print(f"gone after {seconds:.2f} s")
    assert code == 0
    assert seconds < 1 + 5


async def test_a_drain_lets_a_short_job_end(tmp_path: Path, writable_database_url: str) -> None:
    async with replaceable(tmp_path, writable_database_url, seconds=2) as (database, first, one):
        first.send(signal.SIGTERM)

        assert await first.wait_end() == 0
        assert await database.read(claims, one) == (1, "done", 0)


async def test_a_process_that_only_works_serves_operators_and_nobody_else(
    tmp_path: Path, writable_database_url: str
) -> None:
    async with working(tmp_path, writable_database_url) as (database, first):
        await database.run(enqueue, program.hopeless, number=1)

        async def dead() -> bool:
            return any(one.state == "dead" for one in await database.read(statistics.counts))

        await until(dead)
        async with httpx2.AsyncClient(base_url=first.management) as client:
            probe = await client.get("/readyz")
            counts = (await client.get("/jobs")).json()["counts"]
            listed = (await client.get("/jobs/list?state=dead")).json()["jobs"]
            shown = (await client.get(f"/jobs/{listed[0]['id']}")).json()
            wrong = await client.get("/jobs/list?state=gone&limit=9")
            path = f"/jobs/{listed[0]['id']}/discard"
            discarded = await client.post(path, headers={"Content-Type": "application/json"}, content=b"{}")
            missing = await client.post("/jobs/77/retry", headers={"Content-Type": "application/json"}, content=b"{}")
            foreign = await client.post(path, headers={"Origin": "https://evil.example"}, json={})
            no_kind = [
                await client.get("/jobs/list?kind=a%00"),
                await client.post("/jobs/retry?kind=a%00", json={}),
                await client.post("/jobs/discard?kind=", json={}),
                await client.post("/jobs/discard?kind=a&state=running", json={}),
                await client.post("/jobs/retry?kind=a&state=waiting", json={}),
            ]
            no_id = [await client.get(f"/jobs/{2**63}"), await client.post(f"/jobs/{2**63}/run", json={})]
        said = [
            run_to_end(tmp_path, "jobs", "--url", first.management, *words)
            for words in ([], ["list", "--state", "discarded"], ["show", str(listed[0]["id"])], ["retry", "99"])
        ]
        await database.run(enqueue, program.hopeless, number=2)
        await until(dead)
        later = program.hopeless.with_options(delay=3_600)
        for number in range(3):
            await database.run(enqueue, later, number=number)
        of_a_kind = [
            run_to_end(tmp_path, "jobs", "--url", first.management, *words)
            for words in (
                ["discard", "--kind", "hopeless"],
                ["discard", "--kind", "hopeless", "--state", "waiting"],
                ["discard", "--kind", "hopeless", "--state", "waiting"],
                ["retry", "--kind", "hopeles"],
                ["retry"],
                ["retry", "1", "--kind", "x"],
                ["discard", "1", "--state", "waiting"],
            )
        ]

    assert probe.status_code == 200
    assert set(first.urls) == {"management"}
    assert [(one["kind"], one["state"], one["count"]) for one in counts] == [("hopeless", "dead", 1)]
    assert shown["arguments"] == {"number": 1}
    assert shown["error"] == "RuntimeError: it always fails"
    assert "state: must be one of waiting, running, done, dead, discarded, not 'gone'" in wrong.json()["detail"]
    assert discarded.json()["state"] == "discarded"
    assert missing.status_code == 404
    assert foreign.status_code == 403
    assert [(one.status_code, one.json()["detail"]) for one in no_kind] == [
        (400, "kind: must be a job's name, as /jobs lists them, not 'a\\x00'"),
        (400, "kind: must be a job's name, as /jobs lists them, not 'a\\x00'"),
        (400, "kind: must be a job's name, as /jobs lists them, not ''"),
        (400, "state: must be dead or waiting to discard, not 'running'"),
        (400, "state: must be dead to retry, not 'waiting'"),
    ]
    assert [(one.status_code, one.json()["detail"]) for one in no_id] == [(404, f"there is no job {2**63}")] * 2
    assert [one.returncode for one in said] == [0, 0, 0, 1], [one.stdout + one.stderr for one in said]
    assert "no job waits, runs or is dead" in said[0].stdout
    assert "hopeless" in said[1].stdout
    assert "it always fails" in said[2].stdout
    assert "there is no job 99 that is dead or discarded" in said[3].stderr
    assert [one.stdout + one.stderr for one in of_a_kind] == [
        "hopeless: 1 discarded\n",
        "hopeless: 3 discarded\n",
        f"{first.management}/jobs/discard?kind=hopeless&state=waiting says 404: "
        "there is no waiting job of hopeless to discard\n",
        f"{first.management}/jobs/retry?kind=hopeles&state=dead says 404: there is no dead job of hopeles to retry\n",
        "name one job by its id, or a kind by --kind\n",
        "name one job by its id, or a kind by --kind\n",
        "--state goes with --kind: job 1 is meant whatever its state is\n",
    ]
    assert [one.returncode for one in of_a_kind] == [0, 0, 1, 1, 2, 2, 2]
    acts = [*first.events("job changed by an operator"), *first.events("jobs changed by an operator")]
    assert [[one.get(key) for key in ("change", "kind", "id", "count")] for one in acts] == [
        ["discard", "hopeless", listed[0]["id"], None],
        ["discard", "hopeless", None, 1],
        ["discard", "hopeless", None, 3],
    ]


def test_a_worker_that_may_run_nothing_is_refused(tmp_path: Path) -> None:
    done = run_to_end(tmp_path, "work", database_url="postgresql://h/d", jobs_concurrency=0)

    assert done.returncode == 2
    assert done.stderr == "SERVICE_JOBS_CONCURRENCY: must be 1 or more for a process that only runs jobs; it is 0\n"
