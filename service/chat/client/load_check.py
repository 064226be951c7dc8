"""What a load run knows of each message, and so whether the chat kept its promises. Pure: no sockets, no clock.

A member must see each seq after the one it joined at, in order, once; all members the same message at a seq; and each
acked message must have come to every member that stayed or resumed.
"""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Cursor:
    """How far one member has come in its room."""

    epoch: str
    seq: int


@dataclass(slots=True)
class Checker:
    """Told of everything as it happens; `violations` says the rest at the end."""

    found: Counter[str] = field(default_factory=Counter)
    told_gaps: int = 0  # not silent, so allowed: retention, or a new epoch
    repeats: int = 0  # acks that say the message was stored before; allowed
    _cursors: dict[tuple[int, str], Cursor] = field(default_factory=dict)
    _ids: dict[tuple[str, str, int], str] = field(default_factory=dict)
    _seqs: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)
    _acked: dict[tuple[str, str], tuple[str, int]] = field(default_factory=dict)

    def since(self, member: int, room: str) -> Cursor | None:
        """Return where the member should resume; None before its first join."""
        return self._cursors.get((member, room))

    def joined(self, member: int, room: str, epoch: str, start: int, *, gap: bool) -> None:
        before = self._cursors.get((member, room))
        if gap:
            self.told_gaps += 1
        elif before is not None and (before.epoch, before.seq) != (epoch, start):
            self.found["out of order"] += 1  # a resumption elsewhere than where it was asked for
        self._cursors[member, room] = Cursor(epoch, start)

    def received(self, member: int, room: str, epoch: str, seq: int, id_: str) -> None:
        cursor = self._cursors[member, room]
        if epoch != cursor.epoch or seq > cursor.seq + 1:
            self.found["out of order"] += 1
        elif seq <= cursor.seq:
            self.found["duplicated"] += 1
            return
        self._cursors[member, room] = Cursor(epoch, seq)
        self._place(room, epoch, seq, id_)

    def acked(self, room: str, epoch: str, seq: int, id_: str, *, dup: bool) -> None:
        self.repeats += dup
        self._acked[room, id_] = epoch, seq
        self._place(room, epoch, seq, id_)

    def missing(self) -> int:
        """Return how many acked messages have not come to some member of their room."""
        last: dict[tuple[str, str], int] = {}  # how far the last member of a room has come in an epoch
        for (_, room), cursor in self._cursors.items():
            last[room, cursor.epoch] = min(cursor.seq, last.get((room, cursor.epoch), cursor.seq))
        return sum(last.get((room, epoch), seq) < seq for (room, _), (epoch, seq) in self._acked.items())

    def violations(self, *, unanswered: int) -> dict[str, int]:
        """Return the count of each kind; `unanswered` sends got neither ack nor error in time."""
        kinds = ("duplicated", "out of order")
        return {"lost": self.missing(), **{kind: self.found[kind] for kind in kinds}, "unanswered": unanswered}

    def _place(self, room: str, epoch: str, seq: int, id_: str) -> None:
        """One message at a seq, and one seq for a message."""
        if self._ids.setdefault((room, epoch, seq), id_) != id_:
            self.found["out of order"] += 1
        if self._seqs.setdefault((room, id_), (epoch, seq)) != (epoch, seq):
            self.found["duplicated"] += 1
