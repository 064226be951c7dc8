"""Thousands of units, cancelled at random moments: what returned is committed, the rest is not, nothing is left behind.

The seeds are printed by pytest; `make drill` runs ten of each.
"""

import gc
import os
import random
import resource
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trio

from service.platform.database import Database, Statement, open_database
from service.platform.errors import DatabaseAway
from service.platform.testing.fixtures import MakeSettings
from tests.platform.database.observer import observe
from tests.platform.database.units import INSERT_AND_SLEEP, create_table, insert_and_sleep, select_numbers

TASKS, UNITS = 40, 5000
CONNECTIONS = 10
WAIT = Statement("wait", "SELECT pg_sleep($1::float8)")
SEEDS = [1, *(pytest.param(seed, marks=pytest.mark.drill) for seed in range(2, 12))]


@dataclass
class Tally:
    returned: set[int] = field(default_factory=set)
    cancelled: set[int] = field(default_factory=set)
    raised: list[BaseException] = field(default_factory=list)


@dataclass
class Usual:
    """How long a unit takes, as the machine is just now: when a cancel should come."""

    seconds: float = 0.01

    def note(self, seconds: float) -> None:
        self.seconds += (seconds - self.seconds) / 20


async def attempt(database: Database, tally: Tally, number: int, seconds: float, *, sleeps: int, last: float) -> None:
    """Run a unit, every other on no thread behind a reading one, cancelled after some seconds; note how it ended."""
    with trio.move_on_after(seconds):
        try:
            if number % 2:
                await database.run(insert_and_sleep, number=number, sleeps=sleeps, seconds=last)
            else:
                await database.fetch(WAIT, last)
                await database.execute(INSERT_AND_SLEEP, number, sleeps * last)
            tally.returned.add(number)
        except trio.Cancelled:
            tally.cancelled.add(number)
            raise
        except Exception as error:  # counted, and none is expected
            tally.raised.append(error)


async def cancel_anywhere(
    database: Database, tally: Tally, numbers: Iterator[int], chance: random.Random, usual: Usual
) -> None:
    for number in numbers:
        # queued and connecting, in SQL and between statements, around COMMIT; a third is left alone
        share = chance.choice([0.02, 0.1, 0.2, 0.5, 0.7, 0.8, 0.9]) * chance.uniform(0.5, 1.5)
        sleeps, last = chance.choice([0, 1, 2, 4]), chance.uniform(0, 0.006)
        if chance.random() < 0.7:
            await attempt(database, tally, number, usual.seconds * share, sleeps=sleeps, last=last)
        else:
            started = trio.current_time()
            await attempt(database, tally, number, 60, sleeps=sleeps, last=last)
            usual.note(trio.current_time() - started)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_connection_to_which_a_descriptor_is_missing_is_closed_at_once(make_settings: MakeSettings) -> None:
    """And not when somebody looks for garbage, which is seldom: until then it would take the last descriptor."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with open_database(make_settings()) as database:
        await database.look()
        before = open_descriptors()
        lowest = os.dup(0)  # the one that the socket will have, and its second has none
        os.close(lowest)
        gc.disable()
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, limits[1]))
        try:
            with pytest.raises(DatabaseAway) as away:
                await database.run(select_numbers)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            after = open_descriptors()
            gc.enable()

    assert isinstance(away.value.__cause__, OSError)
    assert after == before


async def test_what_the_connections_of_units_and_jobs_take_is_in_what_the_process_asks_for(
    make_settings: MakeSettings,
) -> None:
    async def fill(size: int) -> tuple[int, int]:
        settings = make_settings(database_connections=size, jobs_concurrency=size)
        async with open_database(settings) as database, trio.open_nursery() as nursery:
            for _ in range(size):
                nursery.start_soon(database.fetch, WAIT, 60.0)
            of_jobs = database.beside(size, queue_wait=60)
            for _ in range(size):
                nursery.start_soon(of_jobs.fetch, WAIT, 60.0)
            while len(database.in_flight()) < 2 * size:
                await trio.sleep(0.01)
            taken = open_descriptors()
            nursery.cancel_scope.cancel()
        return taken, settings.most_descriptors

    with trio.fail_after(60):
        (few, asked_for_few), (many, asked_for_many) = await fill(1), await fill(12)

    assert many - few <= asked_for_many - asked_for_few


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_storm_of_cancels_leaves_nothing_behind(
    make_settings: MakeSettings, database_url: str, seed: int
) -> None:
    chance, tally, numbers, usual = random.Random(seed), Tally(), iter(range(UNITS)), Usual()
    before = open_descriptors(), threading.active_count()
    settings = make_settings(database_connections=CONNECTIONS, database_queue_wait=60)
    with trio.fail_after(120), observe(database_url) as observer:
        async with open_database(settings) as database:
            await database.run(create_table)
            async with trio.open_nursery() as nursery:
                for _ in range(TASKS):
                    nursery.start_soon(cancel_anywhere, database, tally, numbers, chance, usual)
            committed = await database.read(select_numbers)
            after = database.statistics()
            idle_in_transaction = observer.idle_in_transaction()
            sessions = observer.sessions()
        while observer.sessions():
            await trio.sleep(0.01)

    print(f"{len(tally.returned)} returned, {len(tally.cancelled)} cancelled, {after}")
    assert tally.raised == []
    assert len(tally.returned) + len(tally.cancelled) == UNITS
    assert len(tally.cancelled) >= 2000
    assert after.cancels_sent >= 100, "enough of them reached the server"
    assert committed == tally.returned
    assert (after.connections_in_use, after.waiting, after.connections_idle) == (0, 0, CONNECTIONS)
    assert sessions == CONNECTIONS + 1, "the pool's and the watch's"
    assert idle_in_transaction == 0
    assert open_descriptors() <= before[0] + 1  # the observer's
    assert threading.active_count() <= before[1] + CONNECTIONS  # Trio keeps idle threads for ten seconds


@pytest.mark.parametrize("seed", SEEDS)
async def test_no_innocent_unit_is_hit_by_the_cancel_of_another(make_settings: MakeSettings, seed: int) -> None:
    """Cancels that come just as their unit ends would, unordered, hit its COMMIT or the connection's next unit."""
    chance, victims, innocents, usual = random.Random(seed), Tally(), Tally(), Usual()
    settings = make_settings(database_connections=5, database_queue_wait=60)
    with trio.fail_after(120):
        async with open_database(settings) as database:
            await database.run(create_table)

            async def innocent(start: int) -> None:
                for number in range(start, start + UNITS // 5):
                    started = trio.current_time()
                    await attempt(database, innocents, number, 60, sleeps=chance.randrange(2), last=0)
                    usual.note(trio.current_time() - started)

            async def victim(start: int) -> None:
                for number in range(start, start + 1_000_000):
                    await attempt(database, victims, number, usual.seconds * chance.uniform(0.2, 1.2), sleeps=0, last=0)

            async with trio.open_nursery() as nursery:
                for task in range(5):
                    nursery.start_soon(victim, 10_000_000 + task * 1_000_000)
                async with trio.open_nursery() as working:
                    for task in range(5):
                        working.start_soon(innocent, task * UNITS)
                nursery.cancel_scope.cancel()
            committed = await database.read(select_numbers)
            after = database.statistics()

    print(f"{len(innocents.returned)} innocents, {len(victims.cancelled)} cancelled, {after.cancels_sent} cancels sent")
    assert innocents.raised == []
    assert victims.raised == []
    assert len(innocents.returned) == UNITS
    assert after.cancels_sent >= 100, "the race was provoked"
    assert committed == innocents.returned | victims.returned
