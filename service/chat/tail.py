"""The latest messages of a room, kept in memory so that many members who resume at once need no SQL. Pure."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from service.chat.protocol import Message

MAX_ENTRIES = 256
OVERHEAD = 1_000  # bytes of objects around a text, roughly


class Entry:
    """A message, and its frames: each kind is encoded once, however many members get it."""

    __slots__ = ("_frames", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self._frames: dict[object, Any] = {}

    @property
    def seq(self) -> int:
        return self.message.seq

    @property
    def cost(self) -> int:
        return OVERHEAD + 4 * len(self.message.text)

    def frame[F](self, encode: Callable[[Message], F]) -> F:
        frame: F | None = self._frames.get(encode)
        if frame is None:
            frame = self._frames[encode] = encode(self.message)
        return frame


class Burst:
    """Entries that are delivered together: in one write for each member, as the system call is most of its cost."""

    __slots__ = ("_frames", "entries")

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self._frames: dict[object, Any] = {}

    def frame[F](self, encode: Callable[[Sequence[Entry]], F]) -> F:
        frame: F | None = self._frames.get(encode)
        if frame is None:
            frame = self._frames[encode] = encode(self.entries)
        return frame


class Budget:
    """The bytes that all tails of this process may hold together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0


class Tail:
    """Dense: entry by entry the seq rises by one, and the last is the room's head (or there is none)."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._entries: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)
        self._budget.used += entry.cost
        while self._entries and (len(self) > MAX_ENTRIES or self._budget.used > self._budget.limit):
            self._budget.used -= self._entries.popleft().cost

    def prepend(self, entries: Iterable[Entry], *, head: int) -> None:
        """Take in what was read for one member's catch-up, the youngest first, for the others who need the same."""
        for entry in sorted(entries, key=lambda entry: -entry.seq):
            full = len(self) >= MAX_ENTRIES or self._budget.used + entry.cost > self._budget.limit
            wanted = self._entries[0].seq - 1 if self._entries else head
            if full or entry.seq < wanted:
                return
            if entry.seq == wanted:
                self._entries.appendleft(entry)
                self._budget.used += entry.cost

    def after(self, seq: int, *, limit: int) -> list[Entry] | None:
        """Return the entries that follow `seq`; None when the first of them is no longer here."""
        if not self._entries or seq + 1 < self._entries[0].seq:
            return None
        start = seq + 1 - self._entries[0].seq
        return list(islice(self._entries, start, start + limit))

    def clear(self) -> None:
        self._budget.used -= sum(entry.cost for entry in self._entries)
        self._entries.clear()
