"""The rows of a table in the order of their commits, read once by each process, for any number of followers.

The numbers of an identity column are given before the commit: whoever has seen 7 may find 6 later, or never. So a unit
that adds to a feed first takes the table's turn, which it has until its commit (`in_order`). Units of one table then
wait for each other; what else they do is not held up.

Theory of operation. One task, `Feed.run`, reads on from the last row that this process knows, whenever it is told that
something was committed, and each TICK anyway: a notification is a hint. It keeps the last KEEP rows. A follower is
given what follows its cursor, out of memory, or out of the table when it is further behind: it asks for more when it
has dealt with what it got, so a slow one holds up nobody and fills nothing. While nobody follows, nothing is read.

What cannot happen, and why.
- A row missed: numbers rise in the order of commits, so below one that can be read there are none to come; and what is
  in memory is dense from `_floor` on, below which a follower reads the table.
- A follower that sleeps over a row: it takes `_changed` before it looks, and each row that comes sets that.
- A cursor from nowhere that others suffer by: `_head` comes from the table alone.
- A row that a failover has lost, given to whoever comes later, or one that is not given as it has its number: what is
  in memory is forgotten whenever the listener has lost its connection.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any
from weakref import WeakSet

import sqlalchemy as sa
import trio
from sqlalchemy import Connection

from service.platform.database.door import Database
from service.platform.database.notify import MOST_OF_CHANNEL, notify

TICK = 1.0  # seconds between two looks without a hint
KEEP = 1_000  # rows in memory
AT_ONCE = 100  # rows of one read


def in_order(connection: Connection, table: sa.Table) -> None:
    """Take the table's turn until the commit, and tell its feed then: to be called before the rows are inserted.

    Waits for the units that have it. The primary key of the table is one column, whose numbers rise: an identity.
    """
    connection.execute(_TURN, {"table": table.fullname})
    notify(connection, _channel(table))


@asynccontextmanager
async def open_feed(database: Database, table: sa.Table) -> AsyncIterator["Feed"]:
    """Yield what follows the rows of a table."""
    feed = Feed(database, table)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(database.keep_running, feed.run)
        yield feed
        nursery.cancel_scope.cancel()


class Feed:
    """Of one table in one process. `open_feed` makes it."""

    def __init__(self, database: Database, table: sa.Table) -> None:
        self.table = table
        self._database = database
        self._followers: WeakSet[Follower] = WeakSet()
        self._rows: deque[sa.Row[Any]] = deque()
        self._floor = 0  # all that is known to be above it, and not above `_head`, is in `_rows`
        self._head: int | None = None  # None: not known
        self._changed = trio.Event()

    def follow(self, after: int) -> "Follower":
        """Return an iterator over the rows whose number is above `after`, in order, which waits for more for ever.

        Raises what `database.read` does, when it has to read rows that are no longer in memory.
        """
        follower = Follower(self, after)
        self._followers.add(follower)
        return follower

    async def run(self) -> None:
        async with self._database.listen(_channel(self.table)) as wakeups:
            while True:
                with trio.move_on_after(TICK):
                    if await anext(wakeups) is None:
                        self._forget()
                if self._followers:
                    await self._read_on()
                else:
                    self._forget()

    async def newer(self, after: int) -> list[sa.Row[Any]]:
        """Wait until there are rows above a number, and return some of them, the lowest first."""
        while True:
            changed = self._changed
            rows = self._recent(after)
            if rows is None:
                rows = await self._database.read(select_after, self.table, after=after)
            if rows:
                return rows
            await changed.wait()

    def _recent(self, after: int) -> list[sa.Row[Any]] | None:
        """Return the rows above a number; None when they have to be looked up."""
        if self._head is None or after < self._floor:
            return None
        recent: list[sa.Row[Any]] = []
        for row in reversed(self._rows):
            if row[0] <= after:
                break
            recent.append(row)
        return recent[::-1]

    async def _read_on(self) -> None:
        if self._head is None:
            self._head = self._floor = await self._database.read(select_newest, self.table)
            self._tell()
        while rows := await self._database.read(select_after, self.table, after=self._head):
            self._rows.extend(rows)
            self._head = rows[-1][0]
            while len(self._rows) > KEEP:
                self._floor = self._rows.popleft()[0]
            self._tell()
            if len(rows) < AT_ONCE:
                break

    def _forget(self) -> None:
        self._rows.clear()
        self._head = None

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class Follower(AsyncIterator[sa.Row[Any]]):
    """One who follows; `after` is the number of the row that it was given last."""

    def __init__(self, feed: Feed, after: int) -> None:
        self.after = after
        self._feed = feed
        self._next: deque[sa.Row[Any]] = deque()

    async def __anext__(self) -> sa.Row[Any]:
        await trio.lowlevel.checkpoint()
        if not self._next:
            self._next.extend(await self._feed.newer(self.after))
        row = self._next.popleft()
        self.after = row[0]
        return row


def select_newest(connection: Connection, table: sa.Table) -> int:
    """Return the highest number, 0 when there is none."""
    newest: int = connection.execute(sa.select(sa.func.coalesce(sa.func.max(_number(table)), 0))).scalar_one()
    return newest


def select_after(connection: Connection, table: sa.Table, *, after: int) -> list[sa.Row[Any]]:
    """Return at most AT_ONCE rows above a number, the lowest first; a row's number is its first column."""
    number = _number(table)
    columns = (number, *(column for column in table.c if column is not number))
    query = sa.select(*columns).where(number > after).order_by(number).limit(AT_ONCE)
    return list(connection.execute(query))


def _number(table: sa.Table) -> sa.Column[Any]:
    [number] = table.primary_key.columns
    return number


def _channel(table: sa.Table) -> str:
    """Return the channel of a table; by a digest of its name where that is too long for one."""
    channel = f"feed {table.fullname}"
    return channel if len(channel.encode()) <= MOST_OF_CHANNEL else f"feed {sha256(channel.encode()).hexdigest()[:32]}"


_TURN = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('feed ' || :table, 0))")
