"""Jobs on a real database: enqueued with their unit, run once in effect, repeated, and handed back."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from sqlalchemy import Connection

from service.platform.database import Database, open_database
from service.platform.jobs import Job, Jobs, enqueue, open_jobs
from service.platform.telemetry import Metrics
from service.platform.testing.fixtures import MakeSettings
from tests.platform.jobs import kinds

LIMIT = 60  # seconds until something is taken to hang
ALL = (kinds.note, kinds.tell, kinds.fail, kinds.sleep, kinds.wait)


@asynccontextmanager
async def world(
    make_settings: MakeSettings, *used: Job[...], concurrency: int = 5
) -> AsyncIterator[tuple[Database, Jobs]]:
    settings = make_settings(jobs_concurrency=concurrency)
    with trio.fail_after(LIMIT):
        async with open_database(settings) as database:
            await database.run(kinds.create_tables)
            async with open_jobs(database, used or ALL, settings, Metrics()) as jobs:
                yield database, jobs


async def until[T](database: Database, look: Callable[[Connection], T], wanted: T) -> None:
    while (found := await database.read(look)) != wanted:
        print(found)
        await trio.sleep(0.02)


async def test_a_job_is_run_soon_after_its_unit_is_committed(make_settings: MakeSettings) -> None:
    async with world(make_settings) as (database, _):
        await trio.sleep(0.3)
        begun = trio.current_time()
        await database.run(enqueue, kinds.note, number=7)
        await until(database, kinds.effects, [7])
        print(f"{trio.current_time() - begun:.3f} s")
        await database.run(enqueue, kinds.tell, number=8)
        await until(database, kinds.effects, [7, 8])
        await until(database, kinds.states, {"done": 2})


async def test_a_unit_that_fails_enqueues_nothing(make_settings: MakeSettings) -> None:
    def unit(connection: Connection) -> None:
        enqueue(connection, kinds.note, number=1)
        raise RuntimeError("no")

    async with world(make_settings) as (database, _):
        with pytest.raises(RuntimeError):
            await database.run(unit)

        assert await database.read(kinds.states) == {}


async def test_what_fails_is_repeated_and_then_dead_and_its_writes_are_gone(make_settings: MakeSettings) -> None:
    async with world(make_settings) as (database, _):
        await database.run(enqueue, kinds.fail, number=1)
        await until(database, kinds.states, {"dead": 1})

        assert await database.read(kinds.effects) == []


async def test_a_stop_hands_back_what_runs(make_settings: MakeSettings) -> None:
    async with world(make_settings) as (database, jobs):
        await database.run(enqueue, kinds.sleep, number=1, seconds=50.0)
        await database.run(enqueue, kinds.wait, number=2, seconds=50.0)
        await until(database, kinds.states, {"running": 2})
        begun = trio.current_time()
        await jobs.stop(within=0.2)

        assert trio.current_time() - begun < 5
        assert await database.read(kinds.states) == {"waiting": 2}
