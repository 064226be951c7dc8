"""A room as this process knows it: who is in it, how far its messages have come, and who gets which.

Every method is a plain `def`: nobody can interleave, so all members see one order. No sockets, no SQL, no clock.
"""

from collections.abc import Iterable, Sequence
from itertools import batched, islice
from typing import Protocol

from service.chat.protocol import Joined, Message, Page, Presence, Since
from service.chat.tail import Budget, Burst, Entry, Tail

AT_ONCE = 64  # messages that are handed out of memory in one step
BURST = 8  # messages of one write at most: 8 of the longest are an eighth of an outbox


class Member(Protocol):
    """Whoever sits in a room. Neither method waits or raises: a member that can't keep up lets itself go."""

    def deliver(self, burst: Burst) -> None: ...

    def move(self, joined: Joined) -> None:
        """Take notice that the seat was put elsewhere, because what follows its cursor is gone."""

    def count(self, presence: Presence) -> None:
        """Take notice of how many members the room has; may be dropped."""


class Seat:
    """A member's place in a room: the last seq it was given, and whether it gets messages as they come.

    One that was left gets nothing: the task of its catch-up is cancelled, and hears of that only when it waits next.
    """

    __slots__ = ("cursor", "epoch", "left", "live", "member", "ref", "room")

    def __init__(self, room: "Room", member: Member, *, ref: str, cursor: int) -> None:
        self.room = room
        self.member = member
        self.ref = ref
        self.epoch = room.epoch
        self.cursor = cursor
        self.live = False
        self.left = False

    def advance(self, entry: Entry) -> bool:
        """Give the member the next message of its catch-up. False when it is not the next one any more.

        The cursor moves in the same breath, and live messages only come once it has reached the room's head: there is
        no moment in which one could be missed or given twice.
        """
        if self.live or self.left or entry.message.epoch != self.epoch or entry.seq != self.cursor + 1:
            return False
        self.cursor = entry.seq
        self.member.deliver(Burst((entry,)))
        self.settle()
        return True

    def settle(self) -> None:
        self.live = self.cursor == self.room.head

    def skip(self) -> None:
        """Go on at the room's head and say so: a gap is never silent."""
        self.epoch, self.cursor, self.live = self.room.epoch, self.room.head, True
        self.member.move(self.joined(gap=True))

    def joined(self, *, gap: bool) -> Joined:
        room = self.room
        return Joined(ref=self.ref, room=room.name, epoch=room.epoch, start=self.cursor, head=room.head, gap=gap)


class Room:
    """Made from a first page; afterwards its head only rises, but for a new epoch."""

    def __init__(self, page: Page, budget: Budget) -> None:
        self.name = page.room
        self.epoch = page.epoch
        self.head = page.head
        self.oldest = page.oldest
        self.newest = page.head  # the highest seq heard of; beyond `head` while this process has not read it yet
        self.tail = Tail(budget)
        self.present: Presence | None = None  # as last told
        self._seats: dict[Seat, None] = {}  # a set that keeps its order, so that runs repeat
        self._untold: dict[Seat, None] = {}  # who has still to hear of `present`

    @property
    def size(self) -> int:
        return len(self._seats)

    @property
    def behind(self) -> bool:
        return self.newest > self.head

    def answers(self, since: Since | None) -> bool:
        """True when a join can be decided from memory; otherwise what the table holds must be looked at first."""
        if since is None:
            return True
        return since.epoch == self.epoch and 0 < since.seq <= self.head and self.recent(since.seq) is not None

    def join(self, member: Member, *, ref: str, since: Since | None) -> tuple[Seat, Joined]:
        cursor, gap = start(since, epoch=self.epoch, head=self.head, oldest=self.oldest)
        seat = Seat(self, member, ref=ref, cursor=cursor)
        seat.settle()
        self._seats[seat] = None
        return seat, seat.joined(gap=gap)

    def leave(self, seat: Seat) -> None:
        seat.left = True
        self._seats.pop(seat, None)
        self._untold.pop(seat, None)

    def note_head(self, seq: int) -> None:
        self.newest = max(self.newest, seq)

    def mark_current(self) -> None:
        """Take the head for the newest again; whoever reads on says so before it reads, and hints may follow."""
        self.newest = self.head

    def mark_stale(self) -> None:
        """Have the room read, though nobody said that it has gone on."""
        self.note_head(self.head + 1)

    def take(self, page: Page) -> None:
        """Take in what was read from the table after this room's head."""
        if page.epoch != self.epoch or page.oldest > self.head + 1:
            self._restart(page)
            return
        self.oldest = page.oldest
        self.note_head(page.head)
        self.extend(page.messages)

    def extend(self, messages: Sequence[Message]) -> None:
        """Deliver the messages that follow the head. Known ones are skipped; after a hole the rest waits for a page."""
        fresh: list[Entry] = []
        for message in messages:
            self.note_head(message.seq)
            if message.seq == self.head + 1 and message.epoch == self.epoch:
                self.head = message.seq
                fresh.append(Entry(message))
                self.tail.append(fresh[-1])
        for burst in batched(fresh, BURST, strict=False):
            self._deliver(Burst(burst))

    def count(self, total: int) -> None:
        """Take notice of how many members there are, here and elsewhere; `tell` is what says it to them."""
        self.present = Presence(room=self.name, count=total)
        self._untold |= self._seats  # who waits already keeps its turn

    def tell(self, limit: int) -> int:
        """Tell the number of members to those who do not know it, at most `limit`; return how many were told."""
        told = tuple(islice(self._untold, limit))
        for seat in told:
            del self._untold[seat]
            if self.present is not None:
                seat.member.count(self.present)
        return len(told)

    def recent(self, after: int) -> list[Entry] | None:
        """Return entries after a seq from memory, none when it is the head; None when they must be read."""
        return [] if after >= self.head else self.tail.after(after, limit=AT_ONCE)

    def remember(self, entries: Iterable[Entry]) -> None:
        self.tail.prepend((entry for entry in entries if entry.message.epoch == self.epoch), head=self.head)

    def close(self) -> None:
        self.tail.clear()

    def _deliver(self, burst: Burst) -> None:
        before, last = burst.entries[0].seq - 1, burst.entries[-1].seq
        for seat in tuple(self._seats):
            if seat.live and seat.cursor == before:
                seat.cursor = last
                seat.member.deliver(burst)

    def _restart(self, page: Page) -> None:
        """A new epoch, or messages removed before this process read them: everybody goes on at the new head."""
        self.epoch, self.head, self.oldest, self.newest = page.epoch, page.head, page.oldest, page.head
        self.tail.clear()
        for seat in tuple(self._seats):
            seat.skip()


def start(since: Since | None, *, epoch: str, head: int, oldest: int) -> tuple[int, bool]:
    """Decide where a joining member goes on: (the seq before its first message, whether something is missing)."""
    if since is None:
        return head, False
    if since.seq == 0:
        return oldest - 1, False
    if since.epoch == epoch and oldest - 1 <= since.seq <= head:
        return since.seq, False
    return head, True
