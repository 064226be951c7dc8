"""What a feed keeps in memory, in virtual time, over a table that is a list."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import sqlalchemy as sa
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.database import Database, Feed
from service.platform.database.feed import AT_ONCE, KEEP, select_newest

step = sa.Table("step", sa.MetaData(), sa.Column("id", sa.BigInteger, primary_key=True), sa.Column("text", sa.Text))


class Rows:
    """A database of one table, as far as a feed asks it."""

    def __init__(self, *texts: str) -> None:
        self.rows = list(enumerate(texts, 1))
        self.looked_for: list[int] = []
        self.tell, self._told = trio.open_memory_channel[frozenset[str] | None](10)

    @asynccontextmanager
    async def listen(self, _: str) -> AsyncIterator[AsyncIterator[frozenset[str] | None]]:
        yield self._told

    async def read(self, function: object, _: sa.Table, *, after: int = 0) -> Any:
        await trio.lowlevel.checkpoint()
        if function is select_newest:
            return max((number for number, _ in self.rows), default=0)
        self.looked_for.append(after)
        return [row for row in self.rows if row[0] > after][:AT_ONCE]

    async def say(self, hint: frozenset[str] | None) -> None:
        """Return when the feed has dealt with it."""
        await self.tell.send(hint)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def open_followed(rows: Rows) -> AsyncIterator[Feed]:
    """Yield a feed that reads on, as somebody follows it."""
    feed = Feed(cast(Database, rows), step)
    follower = feed.follow(2**62)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        await rows.say(None)
        yield feed
        nursery.cancel_scope.cancel()
    assert follower.after == 2**62


async def test_the_latest_rows_are_in_memory_and_no_more(mock_clock: MockClock) -> None:
    rows = Rows()
    async with open_followed(rows) as feed:
        count = KEEP + 3 * AT_ONCE
        rows.rows = [(number, "") for number in range(1, count + 1)]
        await rows.say(frozenset())
        rows.looked_for.clear()

        assert (await anext(feed.follow(count - KEEP)))[0] == count - KEEP + 1
        assert rows.looked_for == []
        assert (await anext(feed.follow(count - KEEP - 1)))[0] == count - KEEP
        assert rows.looked_for == [count - KEEP - 1]


async def text_after(feed: Feed, number: int) -> str:
    row: Any = await anext(feed.follow(number))
    return str(row[1])


async def test_rows_that_the_table_has_lost_are_given_to_nobody(mock_clock: MockClock) -> None:
    rows = Rows("first")
    async with open_followed(rows) as feed:
        rows.rows += [(number, "lost") for number in range(2, 12)]
        await rows.say(frozenset())
        assert await text_after(feed, 1) == "lost"
        rows.rows = rows.rows[:1]
        await rows.say(None)
        rows.rows.append((2, "next"))
        await rows.say(frozenset())

        assert await text_after(feed, 1) == "next"
