"""The rooms that have members in this process: opened from the table, read on when behind, closed when empty."""

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import islice

import trio

from service.chat import pages
from service.chat.protocol import Message, Since
from service.chat.room import Room, Seat
from service.chat.tail import Budget, Entry
from service.platform.database import Database
from service.platform.errors import Unavailable
from service.platform.looks import SharedLook

PAGE = 100  # messages of a room read at once
ROOMS_AT_ONCE = 64  # read in one query
TOLD_AT_ONCE = 100  # members of a room that are told a count before others have their turn
TAILS = 32 << 20  # bytes of recent messages kept, over all rooms
PAUSE = 0.2  # seconds, half to one and a half of it, before a read that gave nothing is tried again


class _Look:
    """Those who ask at the same time where a room stands."""

    def __init__(self, read: Callable[[], Awaitable[None]]) -> None:
        self.reading = SharedLook(read)
        self.interested = 0
        self.newest = 0  # heard of while the room was being opened
        self.head = 0  # what the table had at the latest reading; the room's is lower while there is more than a page

    def is_ahead(self, room: Room, since: Since | None) -> bool:
        """True when somebody has seen what is stored and has still to be read here: no gap, as a join would say."""
        return since is not None and since.epoch == room.epoch and room.head < since.seq <= self.head


class Rooms:
    """One per process. `readers` members at most read the table for their catch-up at the same time."""

    def __init__(self, database: Database, *, readers: int) -> None:
        self._database = database
        self._rooms: dict[str, Room] = {}
        self._looks: dict[str, _Look] = {}
        self._budget = Budget(TAILS)
        self._readers = trio.CapacityLimiter(readers)  # so that those who write find a free connection
        self._behind = trio.Event()
        self._uninformed: dict[str, None] = {}  # rooms in which not all know how many they are; a queue without doubles

    def __iter__(self) -> Iterator[Room]:
        return iter(tuple(self._rooms.values()))

    async def open_room(self, name: str, since: Since | None) -> Room:
        """Return a room in a state that can answer a join. Raises Unavailable.

        Join it before the next await: a room without members may be closed at any time.
        """
        await trio.lowlevel.checkpoint()
        room = self._rooms.get(name)
        if room is None or not room.answers(since):
            room = await self._look(name, since)
        return room

    def close_empty(self) -> None:
        for room in self:
            if not room.size:
                room.close()
                del self._rooms[room.name]

    def offer(self, messages: Sequence[Message]) -> None:
        """Deliver what this process has committed; there is no need to read it back."""
        of_rooms: dict[str, list[Message]] = {}
        for message in messages:
            of_rooms.setdefault(message.room, []).append(message)
        for name, of_room in of_rooms.items():
            if (room := self._rooms.get(name)) is not None:
                room.extend(of_room)
            self.note_head(name, of_room[-1].seq)

    def note_head(self, name: str, seq: int) -> None:
        """Take a hint that a room has come to a seq; if it is news, the room will be read on."""
        if (look := self._looks.get(name)) is not None:
            look.newest = max(look.newest, seq)
        if (room := self._rooms.get(name)) is not None:
            room.note_head(seq)
            if room.behind:
                self._behind.set()

    def count(self, name: str, total: int) -> None:
        """Have a room's members told how many there are, here and elsewhere."""
        if (room := self._rooms.get(name)) is not None:
            room.count(total)
            self._uninformed.setdefault(name)

    async def tell_counts(self, limit: int) -> None:
        """Tell at most `limit` members the counts of their rooms, some of each room in turn."""
        while limit > 0 and self._uninformed:
            name = next(iter(self._uninformed))
            del self._uninformed[name]
            told = room.tell(min(limit, TOLD_AT_ONCE)) if (room := self._rooms.get(name)) is not None else 0
            if told:
                self._uninformed[name] = None
            limit -= told
            await trio.lowlevel.checkpoint()

    async def wait_behind(self) -> None:
        """Return when a room is known to have gone on."""
        await self._behind.wait()
        self._behind = trio.Event()

    async def read_on(self) -> None:
        """Bring the rooms that are behind up to what the table holds. Raises Unavailable; then they stay behind."""
        while behind := list(islice((room for room in self if room.behind), ROOMS_AT_ONCE)):
            cursors = {room.name: room.head for room in behind}
            for room in behind:
                room.mark_current()
            try:
                found = await pages.read_rooms(self._database, cursors, limit=PAGE)
            except BaseException:
                for room in behind:
                    room.mark_stale()  # whoever reads on next begins with them
                raise
            for page in found:
                if (room_now := self._rooms.get(page.room)) is not None:
                    room_now.take(page)

    async def next_entries(self, seat: Seat) -> Sequence[Entry]:
        """Return some of what a seat has still to catch up with; nothing once it is live, or was moved on."""
        while not seat.live:
            entries: Sequence[Entry] | None = seat.room.recent(seat.cursor)
            if entries is None:
                async with self._readers:
                    entries = seat.room.recent(seat.cursor)  # what others have read while this one waited
                    if entries is None:
                        entries = await self._read_for(seat)
            if entries:
                return entries
            if not seat.live:  # the table is away, or behind what was seen of it, as after a failover
                await trio.sleep(_jittered(PAUSE))
        return ()

    async def _read_for(self, seat: Seat) -> Sequence[Entry] | None:
        room, cursor = seat.room, seat.cursor
        try:
            page = await pages.read_after(self._database, room.name, cursor, limit=PAGE)
        except Unavailable:
            return None
        if seat.left:
            return None  # the room may be closed by now, and what it kept would count for ever
        if page.epoch != room.epoch:
            room.take(page)  # a new epoch: moves every seat
        elif page.oldest > cursor + 1 and not seat.live:
            seat.skip()  # removed since the join
        entries = [Entry(message) for message in page.messages if message.seq <= room.head]
        room.remember(entries)
        return entries

    async def _look(self, name: str, since: Since | None) -> Room:
        look = self._looks.setdefault(name, _Look(partial(self._read_room, name)))
        look.interested += 1
        try:
            room, head = None, -1
            # None: or closed since, as nobody had joined it. A page that brings nothing is behind a hole in the table.
            while room is None or (look.is_ahead(room, since) and room.head > head):
                head = -1 if room is None else room.head
                await look.reading.wait()
                room = self._rooms.get(name)
            return room
        finally:
            look.interested -= 1
            if not look.interested:
                del self._looks[name]

    async def _read_room(self, name: str) -> None:
        known = self._rooms.get(name)
        after, limit = (known.head, PAGE) if known is not None else (0, 0)
        page = await pages.read_after(self._database, name, after, limit=limit)
        room, look = self._rooms.get(name), self._looks[name]
        if room is None:
            room = self._rooms[name] = Room(page, self._budget)
        else:
            room.take(page)
        look.head = page.head
        self.note_head(name, look.newest)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311  spreads the tries, keeps no secret
