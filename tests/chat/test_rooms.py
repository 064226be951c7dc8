"""Rooms over a table in memory, in virtual time: when it is read and how often, and that nobody misses a message."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from service.chat import relay
from service.chat.protocol import Message, Page, Since
from service.chat.room import Seat
from service.chat.rooms import PAGE, PAUSE, ROOMS_AT_ONCE, TOLD_AT_ONCE, Rooms
from service.platform.database import Database
from service.platform.database.background import LONGEST_PAUSE, Background
from service.platform.errors import DatabaseAway, Unavailable
from tests.chat.worlds import EPOCH, Listener, message

READ = 0.1  # seconds that reading takes
READERS = 2


class Table:
    """What is stored, as pages.py asks for it. `reads` are the cursors that were asked with."""

    def __init__(self) -> None:
        self.heads: dict[str, int] = {}
        self.oldest = 1
        self.lost_from = 0  # a seq from which on rows are missing, none at 0
        self.epoch = EPOCH
        self.reads: list[dict[str, int]] = []
        self.at_once = self.most_at_once = 0
        self.away = False

    async def read(self, _: object, cursors: Mapping[str, int], *, limit: int) -> list[Page]:
        self.reads.append(dict(cursors))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        found = [self._page(room, after, limit) for room, after in cursors.items()]  # as it is when the reading begins
        await trio.sleep(READ)
        self.at_once -= 1
        if self.away:
            raise DatabaseAway("away")
        return found

    async def fetch(self, _: object, room: str, after: int, _before: int, limit: int) -> Sequence[tuple[object, ...]]:
        (page,) = await self.read(None, {room: after}, limit=limit)
        at = datetime.fromisoformat(message(1).at)
        about = room, page.epoch, page.head, page.oldest
        found = [(*about, one.seq, one.id, one.author, one.text, at, one.subject) for one in page.messages]
        return found or [(*about, None, None, None, None, None, None)]

    def _page(self, room: str, after: int, limit: int) -> Page:
        head = self.heads.get(room, 0)
        last = min(head, max(after, self.oldest - 1) + limit)
        last = min(last, self.lost_from - 1) if self.lost_from else last
        rows = tuple(message(seq, room=room, epoch=self.epoch) for seq in range(max(after + 1, self.oldest), last + 1))
        return Page(room=room, epoch=self.epoch, head=head, oldest=self.oldest, messages=rows)


class World:
    def __init__(self) -> None:
        self.table = Table()
        self.rooms = Rooms(cast(Database, self.table), readers=READERS)

    async def join(self, member: Listener, since: Since | None = None, room: str = "lobby") -> Seat:
        seat, joined = (await self.rooms.open_room(room, since)).join(member, ref="r", since=since)
        member.moves.append(joined)
        return seat

    async def catch_up(self, seat: Seat) -> None:
        while not seat.live:
            for entry in await self.rooms.next_entries(seat):
                if not seat.advance(entry):
                    break

    async def come(self, member: Listener, since: Since | None = None) -> None:
        await self.catch_up(await self.join(member, since))

    def commit(self, count: int, room: str = "lobby") -> list[Message]:
        head = self.table.heads.get(room, 0)
        self.table.heads[room] = head + count
        return [message(seq, room=room) for seq in range(head + 1, head + count + 1)]


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Background().keep_running, relay.read_on, world.rooms)
        yield world
        nursery.cancel_scope.cancel()


async def test_all_who_come_at_once_are_answered_by_one_reading(autojump_clock: MockClock) -> None:
    async with running() as world:
        world.commit(5)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(world.join, Listener())

        assert world.table.reads == [{"lobby": 0}]
        assert next(iter(world.rooms)).size == 100


async def test_a_resume_is_decided_by_a_reading_begun_after_it_was_asked(autojump_clock: MockClock) -> None:
    """Else a member that saw a later seq elsewhere would be told that there is a gap."""
    async with running() as world:
        world.commit(5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.join, Listener())
            await trio.sleep(READ / 2)
            world.commit(3)  # on another replica, where the next member saw it
            late = Listener()
            nursery.start_soon(world.join, late, Since(epoch=EPOCH, seq=8))

        assert [(move.start, move.gap) for move in late.moves] == [(8, False)]
        assert len(world.table.reads) == 2


@pytest.mark.parametrize("missed", [PAGE + 1, 3 * PAGE])
async def test_a_resume_from_beyond_a_page_waits_until_as_much_is_read(autojump_clock: MockClock, missed: int) -> None:
    """Else whoever comes from a replica that was far ahead is told of a gap, and given again what he has."""
    async with running() as world:
        await world.join(Listener())
        world.commit(missed)  # on another replica, where the next members saw it; nothing of it has been heard here
        late = [Listener(), Listener(), Listener()]
        async with trio.open_nursery() as nursery:
            for member in late:
                nursery.start_soon(world.join, member, Since(epoch=EPOCH, seq=missed))

        assert [(move.start, move.gap) for member in late for move in member.moves] == [(missed, False)] * 3


async def test_a_resume_from_beyond_a_hole_in_the_table_is_a_gap_and_no_endless_reading(
    autojump_clock: MockClock,
) -> None:
    """As where somebody has deleted rows by hand: the pages behind it bring nothing."""
    async with running() as world:
        await world.join(Listener())
        world.commit(3 * PAGE)
        world.table.lost_from = PAGE + 1
        late = Listener()
        with trio.fail_after(10):
            await world.join(late, Since(epoch=EPOCH, seq=2 * PAGE))

        assert [(move.start, move.gap) for move in late.moves] == [(PAGE, True)]


async def test_a_resume_from_beyond_what_is_stored_is_a_gap_at_once(autojump_clock: MockClock) -> None:
    async with running() as world:
        await world.join(Listener())
        world.commit(2)
        world.rooms.note_head("lobby", 10 * PAGE)  # anybody's who has the database
        late = Listener()
        await world.join(late, Since(epoch=EPOCH, seq=5))

        assert [(move.start, move.gap) for move in late.moves] == [(2, True)]


@pytest.mark.parametrize("away", [False, True])
async def test_a_reading_that_came_to_nothing_decides_no_resume(autojump_clock: MockClock, away: bool) -> None:
    """Who began it went away, or was told that the table is: else the others would be told that there is a gap."""
    async with running() as world:
        await world.join(Listener())
        late = Listener()

        async def ask() -> None:
            with scope, suppress(Unavailable):
                await world.join(Listener(), Since(seq=0))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.join, Listener(), Since(seq=0))
            await trio.sleep(READ / 2)
            scope = trio.CancelScope()
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            world.commit(8)  # on another replica, where the next member saw it
            nursery.start_soon(world.join, late, Since(epoch=EPOCH, seq=8))
            await trio.sleep(READ)  # the first reading has ended, and the second is under way
            if away:
                world.table.away = True
                await trio.sleep(READ * 0.75)
                world.table.away = False
            else:
                scope.cancel()

        assert [(move.start, move.gap) for move in late.moves] == [(8, False)]


async def test_a_resume_of_what_is_in_memory_reads_nothing(autojump_clock: MockClock) -> None:
    async with running() as world:
        first, second = Listener(), Listener()
        await world.join(first)
        world.rooms.offer(world.commit(20))
        reads = len(world.table.reads)
        await world.come(second, Since(epoch=EPOCH, seq=5))

        assert second.got == list(range(6, 21))
        assert len(world.table.reads) == reads


@pytest.mark.parametrize("missed", [PAGE, 2 * PAGE])
async def test_many_who_catch_up_read_few_at_a_time_and_the_latest_page_for_each_other(
    autojump_clock: MockClock, missed: int
) -> None:
    async with running() as world:
        world.commit(missed)
        members = [Listener() for _ in range(50)]
        async with trio.open_nursery() as nursery:
            for member in members:
                nursery.start_soon(world.come, member, Since(seq=0))

        assert all(member.got == list(range(1, missed + 1)) for member in members)
        assert world.table.most_at_once == READERS
        assert len([cursors for cursors in world.table.reads if cursors == {"lobby": missed - PAGE}]) <= 1 + READERS


async def test_a_hint_has_the_room_read_until_it_is_up_to_the_table(autojump_clock: MockClock) -> None:
    async with running() as world:
        member = Listener()
        await world.join(member)
        world.commit(2 * PAGE + 7)
        world.rooms.note_head("lobby", 1)  # old, and still of use: the table is the truth
        await trio.sleep(1)

        assert member.got == list(range(1, 2 * PAGE + 8))
        assert len(world.table.reads) == 1 + 3


async def test_a_hint_of_what_is_known_or_of_no_room_reads_nothing(autojump_clock: MockClock) -> None:
    async with running() as world:
        await world.join(Listener())
        world.rooms.offer(world.commit(3))
        world.rooms.note_head("lobby", 3)
        world.rooms.note_head("lobby", 1)
        world.rooms.note_head("nobody-is-there", 9)
        await trio.sleep(1)

        assert len(world.table.reads) == 1


async def test_a_hint_that_comes_while_the_room_is_opened_is_not_lost(autojump_clock: MockClock) -> None:
    async with running() as world:
        member = Listener()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.join, member)
            await trio.sleep(READ / 2)
            world.commit(1)
            world.rooms.note_head("lobby", 1)
        await trio.sleep(1)

        assert member.moves[0].start == 0
        assert member.got == [1]


async def test_a_hint_that_comes_during_a_reading_has_the_room_read_again(autojump_clock: MockClock) -> None:
    async with running() as world:
        member = Listener()
        await world.join(member)
        world.commit(1)
        world.rooms.note_head("lobby", 1)
        await trio.sleep(READ / 2)
        world.commit(1)
        world.rooms.note_head("lobby", 2)
        await trio.sleep(1)

        assert member.got == [1, 2]


async def test_what_was_written_here_over_a_hole_waits_for_the_reading(autojump_clock: MockClock) -> None:
    async with running() as world:
        member = Listener()
        await world.join(member)
        world.commit(2)  # elsewhere, and no hint came
        world.rooms.offer(world.commit(1))
        assert member.got == []
        await trio.sleep(1)

        assert member.got == [1, 2, 3]


async def test_many_rooms_are_read_together(autojump_clock: MockClock) -> None:
    async with running() as world:
        members = {f"room-{number}": Listener() for number in range(ROOMS_AT_ONCE + 10)}
        for room, member in members.items():
            await world.join(member, room=room)
        reads = len(world.table.reads)
        for room in members:
            world.commit(1, room)
            world.rooms.note_head(room, 1)
        await trio.sleep(1)

        assert all(member.got == [1] for member in members.values())
        assert [len(cursors) for cursors in world.table.reads[reads:]] == [ROOMS_AT_ONCE, 10]


async def test_while_the_table_is_away_readings_are_repeated_with_pauses_and_joins_are_told(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        member = Listener()
        await world.join(member)
        world.table.away = True
        world.commit(1)
        world.rooms.note_head("lobby", 1)
        with pytest.raises(Unavailable):
            await world.join(Listener(), room="other")
        await trio.sleep(5)
        slowest = READ + 1.5 * PAUSE + LONGEST_PAUSE  # the room pauses, and the task that reads for it
        assert 5 / slowest - 1 < len(world.table.reads) < 5 / (READ + 0.5 * PAUSE) + 3
        world.table.away = False
        await trio.sleep(READ + slowest)  # a reading that has begun fails yet

        assert member.got == [1]


async def test_a_catch_up_goes_on_after_the_table_was_away(autojump_clock: MockClock) -> None:
    async with running() as world:
        world.commit(PAGE + 1)
        member = Listener()
        seat = await world.join(member, Since(seq=0))
        world.table.away = True
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.catch_up, seat)
            await trio.sleep(2)
            world.table.away = False

        assert member.got == list(range(1, PAGE + 2))


async def test_a_catch_up_pauses_where_the_table_is_behind_what_was_seen(autojump_clock: MockClock) -> None:
    """As after a failover that lost commits, until the epoch is renewed."""
    async with running() as world:
        world.commit(300)
        await world.come(Listener())
        world.table.heads["lobby"] = 100
        seat = await world.join(Listener(), Since(epoch=EPOCH, seq=0))
        with trio.move_on_after(1):
            await world.catch_up(seat)
        reads = len(world.table.reads)
        with trio.move_on_after(30 * READ):
            await world.catch_up(seat)

        assert (seat.cursor, seat.live) == (100, False)
        assert len(world.table.reads) - reads <= 30 * READ / (READ + PAUSE / 2)
        world.table.epoch = "renewed"
        await world.catch_up(seat)
        assert (seat.cursor, seat.live) == (100, True)


@pytest.mark.parametrize("oldest", [2, PAGE], ids=["one message", "many"])
async def test_what_was_removed_during_a_catch_up_is_a_declared_gap(autojump_clock: MockClock, oldest: int) -> None:
    async with running() as world:
        world.commit(2 * PAGE)
        member = Listener()
        seat = await world.join(member, Since(seq=0))
        world.table.oldest = oldest
        await world.rooms.next_entries(seat)

        assert (member.got, seat.live) == ([], True)
        assert [(move.start, move.gap) for move in member.moves] == [(0, False), (2 * PAGE, True)]


async def test_who_leaves_during_a_reading_is_not_moved_and_leaves_nothing_in_memory(autojump_clock: MockClock) -> None:
    """The last of a room, which is closed before the reading's end; what it had kept would count for ever."""
    async with running() as world:
        member = Listener()
        world.commit(10)
        seat = await world.join(member, Since(seq=0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.rooms.next_entries, seat)
            await trio.sleep(READ / 2)
            seat.room.leave(seat)
            world.rooms.close_empty()
            world.table.oldest = 5
            await trio.sleep(READ)
            nursery.cancel_scope.cancel()

        assert world.rooms._budget.used == 0
        assert len(member.moves) == 1


async def test_an_empty_room_is_closed_and_opened_anew_from_the_table(autojump_clock: MockClock) -> None:
    async with running() as world:
        seat = await world.join(Listener())
        world.rooms.close_empty()
        assert len(list(world.rooms)) == 1
        seat.room.leave(seat)
        world.rooms.close_empty()
        assert list(world.rooms) == []
        world.commit(4)
        member = Listener()
        await world.join(member)

        assert (member.moves[0].start, len(world.table.reads)) == (4, 2)


async def test_counts_are_told_to_so_many_at_a_time_and_no_room_waits_for_a_large_one(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        crowd = [Listener() for _ in range(3 * TOLD_AT_ONCE)]
        for member in crowd:
            await world.join(member, room="large")
        few = Listener()
        await world.join(few, room="small")
        world.rooms.count("large", len(crowd))
        world.rooms.count("small", 1)
        world.rooms.count("closed-meanwhile", 7)

        await world.rooms.tell_counts(2 * TOLD_AT_ONCE)
        assert sum(len(member.counts) for member in crowd) == 2 * TOLD_AT_ONCE - 1
        assert few.counts == [1]
        await world.rooms.tell_counts(10 * TOLD_AT_ONCE)

        assert all(member.counts == [len(crowd)] for member in crowd)
