"""Sends that wait for the database: in order, bounded, each with the time by which it must be answered. Pure."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count
from operator import attrgetter

from service.chat.protocol import Ack, Error
from service.chat.store import Draft

MAX_WAITING = 2_000
MAX_WAITING_OF_ONE = 64  # of one connection
MAX_BATCH = 256
MAX_BATCH_OF_ONE = 32
MAX_BATCH_BYTES = 1 << 20

type Answer = Ack | Error


@dataclass(eq=False, slots=True, kw_only=True)
class Pending:
    """A draft, and who waits for what becomes of it. `answer` is called exactly once; it neither waits nor raises."""

    draft: Draft
    owner: object
    answer: Callable[[Answer], None]
    deadline: float
    number: int = 0  # in the order in which they came
    needs_more: bool = False  # than a statement alone, as was found out
    answered: bool = False

    @property
    def size(self) -> int:
        return len(self.draft.text.encode())


class Full(Exception):
    """No place for another send, of anybody or of this owner."""


class Backlog:
    """Whatever is added counts as waiting until it is answered, in a batch or not."""

    def __init__(self) -> None:
        self._numbers = count()
        self._waiting: list[Pending] = []  # not in a batch at the moment, in the order in which they came
        self._unanswered: deque[Pending] = deque()  # all, by deadline
        self._count: Counter[object] = Counter()
        self._total = 0
        self._held: set[str] = set()

    def __len__(self) -> int:
        return self._total

    def add(self, pending: Pending) -> None:
        """Raises Full. Deadlines must not go down from one to the next."""
        if self._total >= MAX_WAITING or self._count[pending.owner] >= MAX_WAITING_OF_ONE:
            raise Full
        self._total += 1
        pending.number = next(self._numbers)
        self._count[pending.owner] += 1
        self._waiting.append(pending)
        self._unanswered.append(pending)

    def take(self, *, only: str | None = None) -> list[Pending]:
        """Take the next batch, oldest first: of one room, or of all that are not held."""
        batch: list[Pending] = []
        rest: list[Pending] = []
        of_one: Counter[object] = Counter()
        size = 0
        for pending in self._waiting:
            if pending.answered:
                continue
            room = pending.draft.room
            wanted = room == only if only is not None else room not in self._held
            fits = len(batch) < MAX_BATCH and of_one[pending.owner] < MAX_BATCH_OF_ONE
            if not (wanted and fits and (not batch or size + pending.size <= MAX_BATCH_BYTES)):
                if wanted:
                    of_one[pending.owner] = MAX_BATCH_OF_ONE  # what it sent later must not overtake this one
                rest.append(pending)
                continue
            batch.append(pending)
            of_one[pending.owner] += 1
            size += pending.size
        self._waiting = rest
        return batch

    def put_back(self, batch: Iterable[Pending]) -> None:
        """Let sends wait again that were taken and not stored, ahead of those that came later.

        In whatever portions: what was stored one by one is put back one by one, and keeps its order.
        """
        if back := [pending for pending in batch if not pending.answered]:
            self._waiting = sorted([*back, *self._waiting], key=attrgetter("number"))

    def hold(self, room: str) -> None:
        """Keep a room out of the common batches: somebody takes its sends alone."""
        self._held.add(room)

    def release(self, room: str) -> None:
        self._held.discard(room)

    def is_held(self, room: str) -> bool:
        return room in self._held

    def answer(self, pending: Pending, answer: Answer) -> None:
        """Tell the sender, unless it was told before."""
        if pending.answered:
            return
        pending.answered = True
        self._total -= 1
        self._count[pending.owner] -= 1
        if not self._count[pending.owner]:
            del self._count[pending.owner]
        pending.answer(answer)

    def overdue(self, now: float) -> list[Pending]:
        """Remove and return what should have been answered by now."""
        overdue = []
        while self._unanswered and (self._unanswered[0].answered or self._unanswered[0].deadline <= now):
            pending = self._unanswered.popleft()
            if not pending.answered:
                overdue.append(pending)
        return overdue
