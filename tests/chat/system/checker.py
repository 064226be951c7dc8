"""What a chat that loses nothing may never show, checked over what clients recorded. Pure: no sockets, no clock.

Clients write down what they asked, sent and got; at the end each room is read in full. `violations` compares.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Joined:
    """What a member asked for, `since` as (epoch, seq) or None for all that is kept, and what it was told."""

    room: str
    since: tuple[str, int] | None
    epoch: str
    start: int
    gap: bool


@dataclass(frozen=True, slots=True)
class Got:
    room: str
    epoch: str
    seq: int
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Acked:
    room: str
    id: str
    epoch: str
    seq: int
    dup: bool


@dataclass
class History:
    """Everything that was seen. `rooms` is the full read at the end, by seq from 1."""

    sent: dict[tuple[str, str], str] = field(default_factory=dict)  # (room, id) -> text
    acks: list[Acked] = field(default_factory=list)
    members: dict[str, list[Joined | Got]] = field(default_factory=dict)
    rooms: dict[str, list[Got]] = field(default_factory=dict)


def violations(history: History) -> list[str]:
    """Return one line for each thing that was promised and not kept."""
    return [
        *_of_the_order(history),
        *_of_the_acks(history),
        *_of_the_contents(history),
        *(line for name, seen in history.members.items() for line in _of_a_member(name, seen, history)),
    ]


def _of_the_order(history: History) -> Iterator[str]:
    for room, messages in history.rooms.items():
        seqs = [message.seq for message in messages]
        if seqs != list(range(1, len(seqs) + 1)):
            yield f"{room}: the seqs are not dense from 1: {_first_difference(seqs)}"
        for id_, count in Counter(message.id for message in messages).items():
            if count > 1:
                yield f"{room}: {id_} is there {count} times"


def _of_the_acks(history: History) -> Iterator[str]:
    where = {(room, message.id): message for room, messages in history.rooms.items() for message in messages}
    firsts: Counter[tuple[str, str]] = Counter()
    for ack in history.acks:
        stored = where.get((ack.room, ack.id))
        if stored is None:
            yield f"{ack.room}: {ack.id} was acked as {ack.seq} and is lost"
        elif (stored.seq, stored.epoch) != (ack.seq, ack.epoch):
            yield f"{ack.room}: {ack.id} was acked as {ack.seq} and is at {stored.seq}"
        firsts[ack.room, ack.id] += not ack.dup
    yield from (f"{room}: {id_} was acked {count} times as new" for (room, id_), count in firsts.items() if count > 1)


def _of_the_contents(history: History) -> Iterator[str]:
    for room, messages in history.rooms.items():
        for message in messages:
            text = history.sent.get((room, message.id))
            if text is None:
                yield f"{room}: nobody sent {message.id}"
            elif text.encode() != message.text.encode():
                yield f"{room}: {message.id} has another text than was sent"


def _of_a_member(name: str, seen: list[Joined | Got], history: History) -> Iterator[str]:
    cursors: dict[str, tuple[str, int]] = {}
    for event in seen:
        if isinstance(event, Joined):
            yield from _of_a_join(name, event, cursors)
            cursors[event.room] = event.epoch, event.start
        elif event.room not in cursors:
            yield f"{name}: a message of {event.room}, which it has not joined"
        else:
            epoch, seq = cursors[event.room]
            if (event.epoch, event.seq) != (epoch, seq + 1):
                yield f"{name}: {event.room} went from {seq} to {event.seq} and no gap was declared"
            cursors[event.room] = event.epoch, event.seq
            yield from _of_a_message(name, event, history)
    for room, (_, seq) in cursors.items():
        if seq != len(history.rooms[room]):
            yield f"{name}: {room} ends at {seq}, the room at {len(history.rooms[room])}"


def _of_a_join(name: str, joined: Joined, cursors: dict[str, tuple[str, int]]) -> Iterator[str]:
    known = cursors.get(joined.room)
    if not joined.gap and joined.since is None and joined.start != 0:
        yield f"{name}: {joined.room} starts after {joined.start}, not with all, and no gap was declared"
    if not joined.gap and joined.since is not None and (joined.epoch, joined.start) != joined.since:
        yield f"{name}: {joined.room} goes on after {joined.start}, not {joined.since[1]}, and no gap was declared"
    if joined.gap and known is not None and known[0] == joined.epoch:
        yield f"{name}: {joined.room} declared a gap after {known[1]}, where all is kept"


def _of_a_message(name: str, got: Got, history: History) -> Iterator[str]:
    stored = history.rooms[got.room]
    if not 0 < got.seq <= len(stored):
        yield f"{name}: {got.room} {got.seq} was delivered and is not stored"
    elif stored[got.seq - 1] != got:
        yield f"{name}: {got.room} {got.seq} is not what is stored there"


def _first_difference(seqs: list[int]) -> str:
    for expected, seq in enumerate(seqs, 1):
        if seq != expected:
            return f"{seq} where {expected} should be"
    return "none"
