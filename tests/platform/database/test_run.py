"""What `run` and `read` promise when nothing goes wrong, and when the unit itself does."""

import time

import pytest
import trio
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from service.platform.database import Outcome, open_database
from service.platform.testing.fixtures import MakeSettings
from tests.platform.database.units import count, create_table, insert, sleep


async def test_a_unit_that_returns_is_committed(make_settings: MakeSettings) -> None:
    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)

            assert await database.run(insert, number=3) == 3
            assert await database.read(count) == 1


async def test_a_unit_that_raises_is_not_committed(make_settings: MakeSettings) -> None:
    def insert_and_fail(connection: Connection) -> None:
        insert(connection, number=1)
        raise KeyError("no such thing")

    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)

            with pytest.raises(KeyError, match="no such thing"):
                await database.run(insert_and_fail)

            assert await database.read(count) == 0
            assert database.statistics().units[Outcome.FAILED] == 1


async def test_read_cannot_write_in_tests(make_settings: MakeSettings) -> None:
    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.run(create_table)

            with pytest.raises(DBAPIError, match="read-only transaction"):
                await database.read(insert, number=1)


async def test_the_units_that_run_are_shown_the_longest_first(make_settings: MakeSettings) -> None:
    def elder(connection: Connection) -> None:
        sleep(connection, 30)

    def younger(connection: Connection) -> None:
        sleep(connection, 30)

    with trio.fail_after(30):
        async with open_database(make_settings()) as database, trio.open_nursery() as nursery:
            begun = time.perf_counter()
            for number, unit in enumerate((elder, younger), 1):
                nursery.start_soon(database.run, unit)
                while len(database.in_flight()) < number:
                    await trio.sleep(0.01)
            first, second = database.in_flight()
            passed = time.perf_counter() - begun
            nursery.cancel_scope.cancel()

    assert ["elder" in first.unit, "younger" in second.unit] == [True, True]
    assert passed > first.seconds > second.seconds > 0
