"""A feed gives every row to every follower, on each replica, in the order of the commits."""

import random
import shutil
from collections.abc import AsyncIterator
from threading import Event
from time import sleep

import pytest
import sqlalchemy as sa
import trio
from sqlalchemy import Connection, MetaData

from service.platform.database import Database, Feed, Follower, in_order, notify, open_database, open_feed
from service.platform.database.feed import AT_ONCE, KEEP
from service.platform.settings import PlatformSettings
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.own_server import OwnServer

step = sa.Table(
    "step",
    MetaData(),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
)
LIMIT = 60
SOON = 30


def create(connection: Connection) -> None:
    step.create(connection)


def insert(connection: Connection, text: str, *, taken: Event | None = None, go_on: Event | None = None) -> None:
    in_order(connection, step)
    connection.execute(sa.insert(step).values(text=text))
    if taken is not None and go_on is not None:
        taken.set()
        go_on.wait(LIMIT)


def insert_many(connection: Connection, count: int) -> None:
    in_order(connection, step)
    connection.execute(sa.insert(step), [{"text": str(number)} for number in range(1, count + 1)])


def insert_slowly(connection: Connection, text: str) -> None:
    in_order(connection, step)
    connection.execute(sa.insert(step).values(text=text))
    sleep(random.uniform(0, 0.01))


def insert_untold(connection: Connection, text: str) -> None:
    connection.execute(sa.insert(step).values(text=text))


@pytest.fixture
async def database(make_settings: MakeSettings) -> AsyncIterator[Database]:
    with trio.fail_after(LIMIT):
        async with open_database(make_settings()) as database:
            await database.run(create)
            yield database


async def texts(follower: Follower, count: int) -> list[str]:
    return [(await anext(follower)).text for _ in range(count)]


async def test_who_has_the_first_number_is_first_however_late_it_commits(database: Database) -> None:
    taken, go_on = Event(), Event()
    async with open_feed(database, step) as feed, trio.open_nursery() as nursery:
        follower = feed.follow(0)

        async def first() -> None:
            await database.run(lambda connection: insert(connection, "first", taken=taken, go_on=go_on))

        nursery.start_soon(first)
        while not taken.is_set():
            await trio.sleep(0.01)
        with trio.move_on_after(0.3) as waiting:
            await database.run(insert, "not before the first")
        go_on.set()
        assert waiting.cancelled_caught
        await database.run(insert, "second")

        assert await texts(follower, 2) == ["first", "second"]


async def test_every_follower_on_each_replica_gets_every_row_once_in_order(
    database: Database, make_settings: MakeSettings
) -> None:
    async with (
        open_database(make_settings()) as other,
        open_feed(database, step) as here,
        open_feed(other, step) as there,
        trio.open_nursery() as nursery,
    ):
        seen: list[list[int]] = []

        async def write(writer: Database) -> None:
            for number in range(40):
                await writer.run(insert_slowly, str(number))

        async def follow(feed: Feed) -> None:
            follower = feed.follow(0)
            seen.append([(await anext(follower)).id for _ in range(160)])

        for writer in (database, other, database, other):
            nursery.start_soon(write, writer)
        for feed in (here, there, here, there):
            nursery.start_soon(follow, feed)

    assert len(seen) == 4
    assert all(numbers == seen[0] == sorted(set(numbers)) for numbers in seen)


async def test_who_is_far_behind_reads_the_table_and_then_goes_on_live(database: Database) -> None:
    async with open_feed(database, step) as feed:
        await database.run(insert_many, KEEP + AT_ONCE + 1)
        live = feed.follow(KEEP + AT_ONCE)
        await anext(live)
        late = feed.follow(0)
        assert await texts(late, KEEP + AT_ONCE + 1) == [str(number) for number in range(1, KEEP + AT_ONCE + 2)]
        await database.run(insert_many, KEEP + 1)
        assert (await texts(live, KEEP + 1))[-1] == str(KEEP + 1)
        await database.run(insert, "last")

        assert await texts(live, 1) == ["last"]
        assert (await texts(late, KEEP + 2))[-1] == "last"


async def test_what_nobody_told_of_comes_with_the_next_look(database: Database) -> None:
    async with open_feed(database, step) as feed:
        follower = feed.follow(0)
        await database.run(insert, "told")
        await anext(follower)
        await database.run(insert_untold, "untold")

        assert await texts(follower, 1) == ["untold"]


async def test_a_table_whose_name_is_too_long_for_a_channel_has_its_feed_told(database: Database) -> None:
    """And what others tell at the same time goes out, too."""
    long = sa.Table("l" * 63, MetaData(), sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True))

    def add(connection: Connection) -> None:
        long.create(connection, checkfirst=True)
        in_order(connection, long)
        notify(connection, "other", "x")
        connection.execute(sa.insert(long))

    async with open_feed(database, long) as feed, database.listen("other") as wakeups:
        await anext(wakeups)
        await database.run(add)

        assert await anext(wakeups) == frozenset({"x"})
        assert (await anext(feed.follow(0))).id == 1
        assert not database.failing_tasks


async def test_a_cursor_from_nowhere_harms_nobody_else(database: Database) -> None:
    async with open_feed(database, step) as feed, trio.open_nursery() as nursery:
        nursery.start_soon(anext, feed.follow(2**62))
        follower = feed.follow(0)
        await database.run(insert, "one")

        assert await texts(follower, 1) == ["one"]
        nursery.cancel_scope.cancel()


async def test_rows_that_a_failover_has_lost_are_forgotten(one_server: OwnServer) -> None:
    """The server comes back as it was before them, and gives the number of the first to another."""
    kept = one_server.data.with_name(f"{one_server.data.name}-kept")
    with trio.fail_after(LIMIT):
        async with open_database(PlatformSettings(database_url=one_server.url)) as database:
            await database.run(create)
            await database.run(insert, "first")
            one_server.stop()
            shutil.copytree(one_server.data, kept)
            one_server.start()
            async with open_feed(database, step) as feed:
                live = feed.follow(0)
                assert await texts(live, 1) == ["first"]
                for _ in range(10):  # the latest of which are in memory
                    await database.run(insert, "lost")
                    assert await texts(live, 1) == ["lost"]
                one_server.stop("immediate")
                shutil.rmtree(one_server.data)
                kept.rename(one_server.data)
                one_server.start()
                await database.run(insert_many, 10)

                with trio.fail_after(SOON):
                    while (await anext(feed.follow(10))).text == "lost":  # until the feed has heard of it
                        await trio.sleep(0.02)
                late = feed.follow(10)
                await database.run(insert, "next")
                assert await texts(late, 2) == ["10", "next"]
