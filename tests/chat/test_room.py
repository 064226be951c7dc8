"""Who gets which message, and in which order: every rule of joining and fan-out, without a socket or a database."""

from dataclasses import dataclass

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.chat.protocol import Message, Page, Since
from service.chat.room import Room, Seat, start
from service.chat.tail import MAX_ENTRIES, Budget, Entry, Tail
from tests.chat.worlds import EPOCH, Listener, catch_up, message, messages, page, room_at


@dataclass(frozen=True)
class Start:
    name: str
    since: Since | None
    cursor: int
    gap: bool


# The room kept 11 to 20 of its 20 messages.
STARTS = [
    Start("from now", None, 20, False),
    Start("all that is kept", Since(seq=0), 10, False),
    Start("all that is kept, of whatever epoch", Since(epoch="old", seq=0), 10, False),
    Start("in the middle", Since(epoch=EPOCH, seq=15), 15, False),
    Start("at the head", Since(epoch=EPOCH, seq=20), 20, False),
    Start("just before the oldest", Since(epoch=EPOCH, seq=10), 10, False),
    Start("what follows was removed", Since(epoch=EPOCH, seq=9), 20, True),
    Start("beyond the head", Since(epoch=EPOCH, seq=21), 20, True),
    Start("another epoch", Since(epoch="old", seq=15), 20, True),
]


@pytest.mark.parametrize("case", STARTS, ids=lambda case: case.name)
def test_where_a_joining_member_goes_on(case: Start) -> None:
    assert start(case.since, epoch=EPOCH, head=20, oldest=11) == (case.cursor, case.gap)


def test_joining_an_unknown_room_starts_at_zero() -> None:
    _, joined = room_at(0).join(Listener(), ref="r", since=None)

    assert (joined.start, joined.head, joined.gap) == (0, 0, False)


def test_all_members_get_all_messages_in_one_order() -> None:
    room, ann, ben = room_at(5), Listener(), Listener()
    room.join(ann, ref="a", since=None)
    room.extend(messages(6, 7))
    room.join(ben, ref="b", since=None)

    room.extend(messages(8, 9))

    assert ann.got == [6, 7, 8, 9]
    assert ben.got == [8, 9]


def test_a_message_that_comes_twice_is_delivered_once() -> None:
    room, ann = room_at(0), Listener()
    room.join(ann, ref="a", since=None)

    room.extend(messages(1, 3))
    room.extend(messages(2, 4))

    assert ann.got == [1, 2, 3, 4]


def test_messages_after_a_hole_wait_until_the_hole_is_read() -> None:
    room, ann = room_at(0), Listener()
    room.join(ann, ref="a", since=None)

    room.extend(messages(3, 4))
    assert (ann.got, room.behind) == ([], True)

    room.take(page(4, after=0))
    assert (ann.got, room.behind) == ([1, 2, 3, 4], False)


def test_live_messages_wait_behind_the_catch_up() -> None:
    room, ann = room_at(5), Listener()
    seat, joined = room.join(ann, ref="a", since=Since(epoch=EPOCH, seq=2))
    catch_up(seat, messages(3, 4))

    room.extend(messages(6, 6))
    assert (ann.got, seat.live) == ([3, 4], False)

    catch_up(seat, messages(5, 6))
    room.extend(messages(7, 7))
    assert (joined.start, joined.gap) == (2, False)
    assert ann.got == [3, 4, 5, 6, 7]


def test_a_catch_up_that_meets_a_hole_gives_nothing_until_the_seat_is_moved() -> None:
    room, ann = room_at(9), Listener()
    seat, _ = room.join(ann, ref="a", since=Since(seq=0))

    assert not seat.advance(Entry(message(4)))  # 1 to 3 were removed meanwhile
    seat.skip()

    assert ann.got == []
    assert [(move.start, move.gap, move.ref) for move in ann.moves] == [(9, True, "a")]


def test_nothing_comes_after_leaving() -> None:
    room, ann = room_at(0), Listener()
    seat, _ = room.join(ann, ref="a", since=None)
    room.leave(seat)

    room.extend(messages(1, 1))

    assert ann.got == []
    assert room.size == 0


def test_a_catch_up_that_has_not_heard_of_the_leaving_gives_nothing_any_more() -> None:
    """Its task is cancelled, and that it hears at its next wait: what it has at hand it would give until then."""
    room, ann = room_at(3), Listener()
    seat, _ = room.join(ann, ref="a", since=Since(epoch=EPOCH, seq=1))
    catch_up(seat, messages(2, 2))
    room.leave(seat)

    assert not seat.advance(Entry(message(3)))
    assert ann.got == [2]


def test_a_new_epoch_puts_everybody_at_the_new_head_and_says_so() -> None:
    room, ann, ben = room_at(9), Listener(), Listener()
    room.join(ann, ref="a", since=None)
    late, _ = room.join(ben, ref="b", since=Since(seq=0))

    room.take(page(4, epoch="e2"))
    room.extend((message(10), message(5, epoch="e2")))

    assert [(move.epoch, move.start, move.gap) for move in (*ann.moves, *ben.moves)] == [("e2", 4, True)] * 2
    assert ann.got == ben.got == [5]
    assert not late.advance(Entry(message(1)))  # a page of the old epoch, read before


def test_removed_before_this_process_read_them_is_a_declared_gap() -> None:
    room, ann = room_at(3), Listener()
    room.join(ann, ref="a", since=None)

    room.take(page(9, oldest=7, after=3))

    assert ann.got == []
    assert [(move.start, move.gap) for move in ann.moves] == [(9, True)]


def test_of_many_some_are_told_the_count_and_the_others_next_with_the_latest() -> None:
    room = room_at(0)
    members = [Listener() for _ in range(5)]
    seats = [room.join(member, ref="r", since=None)[0] for member in members]

    room.count(5)
    assert [room.tell(2), [member.counts for member in members]] == [2, [[5], [5], [], [], []]]
    room.leave(seats[3])
    room.count(4)
    assert [room.tell(2), [member.counts for member in members]] == [2, [[5], [5], [4], [], [4]]]
    assert [room.tell(9), room.tell(9)] == [2, 0]
    assert [member.counts for member in members] == [[5, 4], [5, 4], [4], [], [4]]


def test_a_resume_of_what_is_in_memory_needs_no_table() -> None:
    room = room_at(100)
    assert not room.answers(Since(epoch=EPOCH, seq=90))

    room.remember([Entry(row) for row in messages(91, 100)])

    assert room.answers(Since(epoch=EPOCH, seq=90))
    assert not room.answers(Since(epoch=EPOCH, seq=89))
    assert not room.answers(Since(epoch=EPOCH, seq=101))
    assert not room.answers(Since(epoch="old", seq=95))
    assert not room.answers(Since(seq=0))
    assert [entry.seq for entry in room.recent(97) or ()] == [98, 99, 100]


def test_the_tail_is_bounded_in_number_and_over_all_rooms_in_bytes() -> None:
    budget = Budget(20_000)
    tails = [Tail(budget) for _ in range(10)]
    for tail in tails:
        for seq in range(1, MAX_ENTRIES * 2):
            tail.append(Entry(message(seq)))
            assert len(tail) <= MAX_ENTRIES
            assert budget.used <= budget.limit

    for tail in tails:
        tail.clear()
    assert (budget.used, sum(map(len, tails))) == (0, 0)


@pytest.mark.parametrize("limit", [1 << 30, 20_000])
def test_a_tail_keeps_as_many_of_the_latest_as_it_may(limit: int) -> None:
    entries = [Entry(message(seq)) for seq in range(1, MAX_ENTRIES * 2 + 1)]
    appended, read = Tail(Budget(limit)), Tail(Budget(limit))
    for entry in entries:
        appended.append(entry)
    read.prepend(entries, head=entries[-1].seq)

    kept = min(MAX_ENTRIES, limit // entries[-1].cost)
    assert (len(appended), len(read)) == (kept, kept)
    for tail in (appended, read):
        assert tail.after(entries[-1].seq - kept, limit=MAX_ENTRIES * 2) == entries[-kept:]
        assert tail.after(entries[-1].seq - kept - 1, limit=1) is None


def test_a_long_text_takes_the_room_of_many_short_ones() -> None:
    long = message(2, text="x" * 4_000)

    assert Entry(long).cost > 10 * Entry(message(1)).cost


def test_an_entry_is_encoded_once_for_each_kind_of_member() -> None:
    calls = []

    def encode(message: Message) -> str:
        calls.append(message.seq)
        return message.text

    entry = Entry(message(7))

    assert [entry.frame(encode), entry.frame(encode)] == ["t7", "t7"]
    assert calls == [7]


class World(RuleBasedStateMachine):
    """A table, one replica's room over it, and members that come, read and go in every order."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch, self.head, self.oldest = EPOCH, 0, 1
        self.room = Room(self.read(0), Budget(6_000))
        self.seats: list[tuple[Seat, Listener]] = []
        self.pages: list[Page] = []

    def rows(self, after: int, last: int) -> tuple[Message, ...]:
        return tuple(message(seq, epoch=self.epoch) for seq in range(max(after + 1, self.oldest), last + 1))

    def read(self, after: int, limit: int = 3) -> Page:
        rows = self.rows(after, self.head)[:limit]
        return Page(room="lobby", epoch=self.epoch, head=self.head, oldest=self.oldest, messages=rows)

    @rule(count=st.integers(1, 4), offered=st.booleans())
    def commit(self, count: int, offered: bool) -> None:
        self.head += count
        if offered:  # this replica wrote them
            self.room.extend(self.rows(self.head - count, self.head))

    @rule()
    def start_reading(self) -> None:
        self.pages.append(self.read(self.room.head))

    @precondition(lambda self: self.pages)
    @rule()
    def take_what_was_read(self) -> None:
        self.room.take(self.pages.pop(0))

    @rule()
    def retention(self) -> None:
        self.oldest = min(self.oldest + 2, self.head + 1)

    @rule()
    def epoch_changes(self) -> None:
        self.epoch, self.head, self.oldest, self.pages = self.epoch + "x", self.head // 2, 1, []

    @rule(back=st.integers(0, 6), now=st.booleans())
    def join(self, back: int, now: bool) -> None:
        since = None if now else Since(epoch=self.room.epoch, seq=max(0, self.room.head - back))
        if not self.room.answers(since):
            self.room.take(self.read(self.room.head))
        member = Listener()
        seat, joined = self.room.join(member, ref="r", since=since)
        member.moves.append(joined)
        self.seats.append((seat, member))

    @precondition(lambda self: self.seats)
    @rule(index=st.integers(0), take=st.integers(1, 3))
    def catch_up(self, index: int, take: int) -> None:
        seat, _ = self.seats[index % len(self.seats)]
        if seat.live:
            return
        entries = self.room.recent(seat.cursor)
        if entries is None:
            if self.epoch != self.room.epoch or self.oldest > seat.cursor + 1:
                self.room.take(self.read(self.room.head))
                if self.oldest > seat.cursor + 1:
                    seat.skip()
                return
            entries = [Entry(row) for row in self.rows(seat.cursor, self.room.head)]
            self.room.remember(entries)
        for entry in entries[:take]:
            assert seat.advance(entry)

    @invariant()
    def seqs_rise_by_one_from_each_joined(self) -> None:
        for seat, member in self.seats:
            last = member.moves[-1].start
            tail = list(range(last + 1, seat.cursor + 1))
            assert member.got[len(member.got) - len(tail) :] == tail

    @invariant()
    def live_members_are_at_the_head(self) -> None:
        assert all(seat.cursor == self.room.head for seat, _ in self.seats if seat.live)
        assert all(seat.live or seat.cursor < self.room.head for seat, _ in self.seats)


TestWorld = World.TestCase
TestWorld.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
