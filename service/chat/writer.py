"""Many sends, one transaction: whatever comes while a commit runs goes into the next one.

A sender is answered after `database.run` has returned, which it does only after COMMIT: nothing is acked that could
still be lost. Within ANSWER_LIMIT each is answered in any case; a send of unknown fate is safe to repeat with its id.

Theory of operation. A send is waiting, in a batch, or answered:

    waiting  -> in a batch   `Backlog.take`: by the common loop, or by the one task that a held room has
    in a batch -> answered   acked, refused or a conflict, once its transaction has ended
    in a batch -> waiting    its room was locked, or is new, or a statement alone could not store it: `put_back`, ahead
                             of what came later
    any      -> answered     overdue, by the sweep; what becomes of its batch then is told to nobody

A room is common or held. Common: its sends go with all others', and are skipped when it is locked. After MAX_SKIPS
such batches, or at once when it is new, it is held: one task takes its sends alone and waits for its lock, on one of
MAX_ALONE connections. The task ends, and the room is common again, once none of its sends waits.

Who may change what: tasks of `run`'s nursery, between awaits; `submit` from any task. There is no lock, as nothing
here awaits but the database and the queue for MAX_ALONE.

What cannot happen, and why.
- Two batches with sends of one room at the same time, which could change places: the common loop runs one batch at a
  time and takes nothing of held rooms; a held room has one task, begun in the breath in which it became held.
- A later send of a connection before an earlier one: a batch takes none of an owner from the first on that it left.
- Two answers: `Backlog.answer` looks and sets in one breath, and who comes second is dropped. An ack that comes after
  the sweep's refusal is dropped too: the refusal said that it may be stored.
- No answer: each send is in `Backlog` by its deadline, and only an answer takes it out, whatever its batch meets. The
  sweep is a task beside the batches, so a transaction that hangs does not keep it.
- A room that stays held for nobody: its task releases it in a `finally`, in the same breath in which it found nothing.
- Sends that wait while nothing runs: `run` begins by looking, and `submit` sets the event after it has added.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import psycopg
import structlog
import trio
from sqlalchemy.exc import DBAPIError

from service.chat import store
from service.chat.backlog import Answer, Backlog, Full, Pending
from service.chat.protocol import Ack, Error, Message
from service.chat.statistics import ChatStatistics
from service.chat.store import Appended, Draft, Refusal, Repeats, Stored
from service.platform.database import Database
from service.platform.errors import DatabaseUnable, Unavailable

ANSWER_LIMIT = 2.5  # seconds; clients are promised 3
SWEEP = 0.1  # seconds between two looks for overdue sends
UNIT_LIMIT = 2.0  # seconds for one transaction; cancelling it takes half a second at most
MAX_SKIPS = 3  # after so many batches that found it locked, a room is waited for alone
LOCK_TIMEOUT = 0.5  # seconds of such a wait; then the next locked room has its turn
NO_OPTIONS: Mapping[str, float] = {}
WAITING: Mapping[str, float] = {"lock_timeout": LOCK_TIMEOUT}
MAX_ALONE = 4  # rooms waited for at the same time, each on a connection
RETRY_AFTER_MS = 500
MAX_SMALL = 32  # sends of a batch that a statement alone may store: less than half a millisecond of the event loop
MAX_SMALL_TEXT = 32_768  # and characters of their texts
LOCK_NOT_AVAILABLE = "55P03"

log = structlog.get_logger(__name__)


class Writer:
    """One per process. `offer` gets what was committed, in order, for the members that are here."""

    def __init__(
        self, database: Database, offer: Callable[[Sequence[Message]], None], statistics: ChatStatistics | None = None
    ) -> None:
        self._database = database
        self._statistics = statistics or ChatStatistics()
        self._offer = offer
        self._backlog = Backlog()
        self._arrived = trio.Event()
        self._skips: Counter[str] = Counter()
        self._alone = trio.CapacityLimiter(MAX_ALONE)

    @property
    def waiting(self) -> int:
        """Sends that are not answered yet."""
        return len(self._backlog)

    def submit(self, draft: Draft, *, owner: object, answer: Callable[[Answer], None]) -> None:
        """Hand a draft over; `answer` is called once, perhaps at once. Plain `def`: a receive loop never waits here."""
        pending = Pending(draft=draft, owner=owner, answer=answer, deadline=trio.current_time() + ANSWER_LIMIT)
        try:
            self._backlog.add(pending)
        except Full:
            answer(unavailable(draft, "too many sends are waiting"))
        else:
            self._arrived.set()

    async def post(self, draft: Draft) -> Answer:
        """Hand a draft over and wait for its answer, at most ANSWER_LIMIT seconds."""
        answers: list[Answer] = []
        answered = trio.Event()

        def answer(answer: Answer) -> None:
            answers.append(answer)
            answered.set()

        self.submit(draft, owner=answered, answer=answer)
        await answered.wait()
        return answers[0]

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._sweep)
            while True:
                while batch := self._backlog.take():
                    for room in await self._store(batch, store.append, common=True):
                        nursery.start_soon(self._write_alone, room)
                await self._arrived.wait()
                self._arrived = trio.Event()

    async def _sweep(self) -> None:
        while True:
            if not self.waiting:
                await self._arrived.wait()
            await trio.sleep(SWEEP)
            for pending in self._backlog.overdue(trio.current_time()):
                self._refuse(pending, "the database took too long; the message may be stored or not")

    async def _write_alone(self, room: str) -> None:
        """Wait for a locked room, or make a new one, beside the common batches."""
        try:
            while True:
                async with self._alone:
                    batch = self._backlog.take(only=room)
                    if not batch:
                        return
                    await self._store(batch, store.append_waiting, WAITING)
        finally:
            self._backlog.release(room)  # in the same breath in which nothing was found

    async def _store(
        self,
        batch: Sequence[Pending],
        unit: Callable[..., Appended],
        options: Mapping[str, float] = NO_OPTIONS,
        *,
        common: bool = False,
    ) -> list[str]:
        """Store a batch and answer its senders. Returns the rooms that have to be waited for alone from now on.

        Of the common ones a small one is stored in the way that costs least. What that cannot store goes into the next
        batch: nobody waits for a second try.
        """
        batch = [pending for pending in batch if not pending.answered]
        if not batch:
            return []
        try:
            with trio.fail_after(UNIT_LIMIT):
                drafts = [pending.draft for pending in batch]
                if common and is_small(batch):
                    appended = await store.append_by_statement(self._database, drafts)
                else:
                    appended = await self._database.run(unit, drafts, **options)
        except Repeats:
            for pending in batch:
                pending.needs_more = True
            self._backlog.put_back(batch)
            return []
        except (Unavailable, trio.TooSlowError) as error:
            if isinstance(error, DatabaseUnable) and error.sqlstate == LOCK_NOT_AVAILABLE:
                if unit is store.append and len(batch) > 1:  # one of them repeats what retention is deleting
                    return await self._store_one_by_one(batch, unit, options, error)
                if unit is store.append_waiting:
                    self._backlog.put_back(batch)  # until its senders' deadline
                    return []
            for pending in batch:
                self._refuse(pending, str(error) or "the database took too long")
            return []
        except (DBAPIError, psycopg.Error) as error:
            return await self._store_one_by_one(batch, unit, options, error)
        return self._settle(batch, appended)

    async def _store_one_by_one(
        self, batch: Sequence[Pending], unit: Callable[..., Appended], options: Mapping[str, float], error: Exception
    ) -> list[str]:
        """Find the send that PostgreSQL refuses: the others of its batch are not to suffer."""
        if len(batch) > 1:
            return await self._store_each(batch, unit, options)
        for pending in batch:
            log.error("message not stored", exc_info=error)
            self._backlog.answer(pending, unavailable(pending.draft, "the message cannot be stored", retryable=False))
        return []

    async def _store_each(
        self, batch: Sequence[Pending], unit: Callable[..., Appended], options: Mapping[str, float]
    ) -> list[str]:
        """Store each by itself, but none behind one of its room that has to wait: it would overtake that one."""
        alone: list[str] = []
        waiting: set[str] = set()
        behind: list[Pending] = []
        for pending in batch:
            if pending.draft.room in waiting:
                behind.append(pending)
                continue
            alone += await self._store([pending], unit, options)
            if not pending.answered:
                waiting.add(pending.draft.room)
        self._backlog.put_back(behind)
        return alone

    def _settle(self, batch: Sequence[Pending], appended: Appended) -> list[str]:
        again: list[Pending] = []
        refused: dict[str, None] = {}  # rooms; a set that keeps its order, so that runs repeat
        for pending, result in zip(batch, appended.results, strict=True):
            draft = pending.draft
            if isinstance(result, Stored):
                ack = Ack(id=draft.id, room=draft.room, epoch=appended.epoch, seq=result.seq, dup=result.dup)
                self._backlog.answer(pending, ack)
                self._skips.pop(draft.room, None)
            elif result is Refusal.CONFLICT:
                message = f"id: {draft.id!r} was used for another text in this room"
                self._backlog.answer(pending, Error(code="conflict", message=message, id=draft.id))
            else:
                pending.needs_more = True
                again.append(pending)
                refused[draft.room] = None
                self._skips[draft.room] = MAX_SKIPS if result is Refusal.NEW_ROOM else self._skips[draft.room]
        self._offer(appended.messages)
        self._count(batch, appended)
        self._backlog.put_back(again)
        return [room for room in refused if self._must_wait_alone(room)]

    def _count(self, batch: Sequence[Pending], appended: Appended) -> None:
        now = trio.current_time()
        for pending, result in zip(batch, appended.results, strict=True):
            if isinstance(result, Stored) and not result.dup:
                self._statistics.messages += 1
                self._statistics.observe_delivery(now - pending.deadline + ANSWER_LIMIT)

    def _must_wait_alone(self, room: str) -> bool:
        self._skips[room] += 1
        if self._skips[room] < MAX_SKIPS or self._backlog.is_held(room):
            return False
        del self._skips[room]
        self._backlog.hold(room)
        return True

    def _refuse(self, pending: Pending, why: str) -> None:
        self._backlog.answer(pending, unavailable(pending.draft, why))


def is_small(batch: Sequence[Pending]) -> bool:
    """Tell whether a statement alone may store a batch: the event loop makes its text, and reads what comes back."""
    text = sum(len(pending.draft.text) for pending in batch)
    return len(batch) <= MAX_SMALL and text <= MAX_SMALL_TEXT and not any(pending.needs_more for pending in batch)


def unavailable(draft: Draft, why: str, *, retryable: bool = True) -> Error:
    return Error(
        code="unavailable",
        message=f"{why}; it may be sent again with the same id" if retryable else why,
        retryable=retryable,
        retry_after_ms=RETRY_AFTER_MS if retryable else None,
        id=draft.id,
    )
