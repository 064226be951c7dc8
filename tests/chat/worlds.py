"""Fakes and makers for the pure tests of the chat: a member that writes down what it gets, messages, pages."""

from service.chat.protocol import Joined, Message, Page, Presence
from service.chat.room import Room, Seat
from service.chat.store import Draft
from service.chat.tail import Budget, Burst, Entry

EPOCH = "e1"


def message(seq: int, *, room: str = "lobby", epoch: str = EPOCH, text: str = "") -> Message:
    return Message(
        room=room,
        epoch=epoch,
        seq=seq,
        id=f"i{seq}",
        author="ann",
        text=text or f"t{seq}",
        at="2026-01-01T00:00:00.000Z",
    )


def messages(first: int, last: int) -> tuple[Message, ...]:
    return tuple(message(seq) for seq in range(first, last + 1))


def page(head: int, *, oldest: int = 1, epoch: str = EPOCH, after: int | None = None) -> Page:
    found = () if after is None else tuple(message(seq, epoch=epoch) for seq in range(max(after + 1, oldest), head + 1))
    return Page(room="lobby", epoch=epoch, head=head, oldest=oldest, messages=found)


def room_at(head: int, *, oldest: int = 1) -> Room:
    return Room(page(head, oldest=oldest), Budget(1 << 20))


class Listener:
    """A member that notes seqs, where it was put, and how many it was told that they are."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self.moves: list[Joined] = []
        self.counts: list[int] = []

    def deliver(self, burst: Burst) -> None:
        self.got += [entry.seq for entry in burst.entries]

    def move(self, joined: Joined) -> None:
        self.moves.append(joined)

    def count(self, presence: Presence) -> None:
        self.counts.append(presence.count)


def catch_up(seat: Seat, rows: tuple[Message, ...]) -> None:
    for row in rows:
        if seat.cursor < row.seq:
            seat.advance(Entry(row))


def note(id_: str, *, room: str = "lobby", author: str = "ann", text: str | None = None) -> Draft:
    return Draft(room=room, id=id_, author=author, text=f"text of {id_}" if text is None else text)
