"""Many sends, one transaction, in virtual time: what goes together, who is answered when, and what holds up whom."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, cast

import psycopg
import pytest
import trio
from trio.testing import MockClock

from service.chat import store
from service.chat.backlog import MAX_WAITING_OF_ONE, Answer
from service.chat.protocol import Ack, Error, Message
from service.chat.statistics import ChatStatistics
from service.chat.store import Appended, Draft, Refusal, Stored
from service.chat.writer import ANSWER_LIMIT, MAX_SKIPS, MAX_SMALL, SWEEP, UNIT_LIMIT, Writer
from service.platform.database import Database
from service.platform.errors import DatabaseAway, DatabaseUnable, OutcomeUnknown
from tests.chat.worlds import EPOCH, message, note

COMMIT = 0.1  # seconds that a transaction takes


class Table:
    """A database in memory. `units` are the ids of each transaction; rooms may be locked, an id may be refused."""

    def __init__(self) -> None:
        self.units: list[list[str]] = []
        self.by_statement = 0  # units that were a statement alone
        self.heads = {"lobby": 0, "other": 0}
        self.locked: set[str] = set()
        self.known: set[str] = set()  # ids that are stored
        self.poison: set[str] = set()
        self.being_deleted: set[str] = set()
        self.seconds = COMMIT
        self.error: Exception | None = None

    async def run(self, unit: Callable[..., Appended], drafts: Sequence[Draft], *, lock_timeout: float = 0) -> Appended:
        self.units.append([draft.id for draft in drafts])
        await trio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        if any(draft.id in self.poison for draft in drafts):
            raise psycopg.errors.UntranslatableCharacter("no such character")
        if any(draft.id in self.being_deleted for draft in drafts):
            raise DatabaseUnable("locked", sqlstate="55P03")
        if unit is store.append_waiting:
            self.heads.setdefault(drafts[0].room, 0)
            if drafts[0].room in self.locked:
                await trio.sleep(lock_timeout)
                raise DatabaseUnable("locked", sqlstate="55P03")
        return self._append(drafts)

    async def execute(self, *given: Any, before_commit: Callable[[Any], Appended]) -> Appended:
        """Answer the statement that stores drafts: with a row for each that could be, and a seq alone for a repeat."""
        drafts = [
            Draft(**{name: value for name, value in one.items() if name != "place"}) for one in json.loads(given[2])
        ]
        self.by_statement += 1
        if any(draft.id in self.known for draft in drafts):
            self.units.append([draft.id for draft in drafts])
            await trio.sleep(self.seconds)
            return before_commit([(place, 1, None, EPOCH) for place, _ in enumerate(drafts)])
        appended = await self.run(store.append, drafts)
        made = iter(appended.messages)
        return before_commit(
            [
                (place, result.seq, datetime.fromisoformat(next(made).at), EPOCH)
                for place, result in enumerate(appended.results)
                if isinstance(result, Stored)
            ]
        )

    def _append(self, drafts: Sequence[Draft]) -> Appended:
        results: list[Stored | Refusal] = []
        new: list[Message] = []
        for draft in drafts:
            if draft.id in self.known:
                results.append(Stored(1, dup=True))
            elif draft.room not in self.heads:
                results.append(Refusal.NEW_ROOM)
            elif draft.room in self.locked:
                results.append(Refusal.LOCKED)
            else:
                self.heads[draft.room] += 1
                results.append(Stored(self.heads[draft.room], dup=False))
                new.append(message(self.heads[draft.room], room=draft.room))
        return Appended(EPOCH, results, new)


class World:
    """A writer over a table; `answers` are (id, what, when), `offered` what the members here are given."""

    def __init__(self) -> None:
        self.table = Table()
        self.offered: list[tuple[str, int]] = []
        self.answers: dict[str, tuple[Answer, float]] = {}
        self.statistics = ChatStatistics()
        self.writer = Writer(cast(Database, self.table), self._offer, self.statistics)

    def _offer(self, messages: Sequence[Message]) -> None:
        self.offered += [(message.room, message.seq) for message in messages]

    def submit(self, *ids: str, room: str = "lobby", owner: object = None) -> None:
        for id_ in ids:
            self.writer.submit(note(id_, room=room), owner=owner or self, answer=self._note(id_))

    def _note(self, id_: str) -> Callable[[Answer], None]:
        def answer(answer: Answer) -> None:
            assert id_ not in self.answers, "answered twice"
            self.answers[id_] = answer, trio.current_time()

        return answer

    def what(self, id_: str) -> Any:
        return self.answers[id_][0]

    def when(self, id_: str) -> float:
        return self.answers[id_][1]


@asynccontextmanager
async def running() -> AsyncIterator[World]:
    world = World()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.writer.run)
        yield world
        nursery.cancel_scope.cancel()


async def test_what_comes_while_a_commit_runs_goes_into_the_next_one(autojump_clock: MockClock) -> None:
    async with running() as world:
        world.submit("1")
        await trio.sleep(COMMIT / 2)
        world.submit("2", "3")
        world.submit("4", room="other")
        await trio.sleep(1)

    assert world.table.units == [["1"], ["2", "3", "4"]]
    assert world.offered == [("lobby", 1), ("lobby", 2), ("lobby", 3), ("other", 1)]


async def test_a_small_batch_is_one_statement_and_goes_the_other_way_only_if_that_cannot_store_it(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        world.submit("1", "2")
        world.submit("new", room="new")
        await trio.sleep(1)
        assert world.table.units == [["1", "2", "new"], ["new"], ["new"]]
        assert world.table.by_statement == 1
        world.table.known = {"3"}
        world.submit("3", "4")
        await trio.sleep(1)
        assert world.table.units[3:] == [["3", "4"]] * 2
        assert world.table.by_statement == 2
        assert world.statistics.messages == 4  # what is stored already is none

    assert all(isinstance(world.what(id_), Ack) for id_ in ("1", "2", "new", "3", "4"))


@pytest.mark.parametrize(("sends", "text"), [(MAX_SMALL + 1, "x"), (MAX_SMALL // 2, "x" * 4_000)])
async def test_a_batch_that_would_keep_the_event_loop_is_stored_on_a_thread(
    autojump_clock: MockClock, sends: int, text: str
) -> None:
    async with running() as world:
        for number in range(sends):
            world.writer.submit(note(f"{number}", text=text), owner=number, answer=lambda _: None)
        await trio.sleep(1)

        assert len(world.table.units) == 1
        assert world.table.by_statement == 0


async def test_a_locked_room_costs_others_no_second_try(autojump_clock: MockClock) -> None:
    async with running() as world:
        world.table.locked.add("lobby")
        world.submit("locked")
        await trio.sleep(COMMIT / 2)
        world.submit("free", room="other")
        await trio.sleep(COMMIT * 2)

    assert world.table.units[:2] == [["locked"], ["locked", "free"]]
    assert world.when("free") == pytest.approx(2 * COMMIT)


async def test_nobody_is_acked_before_the_commit_has_returned(autojump_clock: MockClock) -> None:
    async with running() as world:
        begun = trio.current_time()
        world.submit("1")
        await trio.sleep(COMMIT * 0.99)
        assert (world.answers, world.offered, world.writer.waiting) == ({}, [], 1)
        await trio.sleep(COMMIT)

    assert isinstance(world.what("1"), Ack)
    assert world.when("1") - begun == pytest.approx(COMMIT)
    assert world.writer.waiting == 0


@pytest.mark.parametrize("error", [DatabaseAway("away"), OutcomeUnknown("unknown")])
async def test_without_a_database_each_is_answered_at_once_and_may_be_repeated(
    autojump_clock: MockClock, error: Exception
) -> None:
    async with running() as world:
        world.table.error = error
        world.submit("1", "2")
        await trio.sleep(2 * COMMIT)
        world.table.error = None
        world.submit("3")
        await trio.sleep(1)

    assert [(world.what(id_).code, world.what(id_).retryable) for id_ in "12"] == [("unavailable", True)] * 2
    assert isinstance(world.what("3"), Ack)


async def test_a_database_that_hangs_holds_up_an_answer_no_longer_than_promised(autojump_clock: MockClock) -> None:
    async with running() as world:
        begun = trio.current_time()
        world.table.seconds = 60
        world.submit("1")
        await trio.sleep(0.1)
        world.submit("2")
        await trio.sleep(5)
        world.table.seconds = COMMIT
        world.submit("3")
        await trio.sleep(1)

    assert world.when("1") - begun == pytest.approx(UNIT_LIMIT)
    assert world.when("2") - begun <= 0.1 + ANSWER_LIMIT + SWEEP
    assert all(isinstance(world.what(id_), Error) and world.what(id_).retryable for id_ in "12")
    assert isinstance(world.what("3"), Ack)


async def test_a_locked_room_is_waited_for_alone_and_holds_up_no_other(autojump_clock: MockClock) -> None:
    async with running() as world:
        world.table.locked.add("lobby")
        begun = trio.current_time()
        world.submit("locked")
        for number in range(20):
            world.submit(f"free-{number}", room="other")
            await trio.sleep(COMMIT)
        world.table.locked.clear()
        await trio.sleep(1)

    waits = [world.when(f"free-{number}") - begun - number * COMMIT for number in range(20)]
    batches = [unit for unit in world.table.units if "locked" in unit and len(unit) > 1]
    assert max(waits) < 3 * COMMIT
    assert len(batches) <= MAX_SKIPS
    assert isinstance(world.what("locked"), Ack)


async def test_a_room_that_stays_locked_is_answered_as_promised_and_in_order_afterwards(
    autojump_clock: MockClock,
) -> None:
    async with running() as world:
        world.table.locked.add("lobby")
        begun = trio.current_time()
        world.submit("1", "2")
        await trio.sleep(ANSWER_LIMIT - 0.5)
        world.submit("3", "4")
        await trio.sleep(0.7)
        world.table.locked.clear()
        await trio.sleep(2)

    assert all(world.when(id_) - begun <= ANSWER_LIMIT + SWEEP for id_ in "12")
    assert all(isinstance(world.what(id_), Error) for id_ in "12")
    assert [world.what(id_).seq for id_ in "34"] == [1, 2]


async def test_a_new_room_is_made_beside_the_common_batches(autojump_clock: MockClock) -> None:
    async with running() as world:
        world.submit("1", room="new")
        world.submit("2", room="other")
        await trio.sleep(1)

    assert world.table.units == [["1", "2"], ["1"], ["1"]]  # by a statement, on a thread, and made
    assert (world.what("1").seq, world.what("2").seq) == (1, 1)


@pytest.mark.parametrize(("fault", "retryable"), [("poison", False), ("being_deleted", True)])
async def test_of_a_batch_that_is_refused_only_who_is_at_fault_suffers(
    autojump_clock: MockClock, fault: str, retryable: bool
) -> None:
    """Who repeats what is being deleted may try again, and nobody waits for it."""
    async with running() as world:
        getattr(world.table, fault).add("2")
        world.submit("1", "2", "3")
        await trio.sleep(1)

    assert [type(world.what(id_)) for id_ in "123"] == [Ack, Error, Ack]
    assert (world.what("2").retryable, world.what("1").seq, world.what("3").seq) == (retryable, 1, 2)
    assert (world.what("2").retry_after_ms is not None) is retryable
    assert world.table.units == [["1", "2", "3"], ["1"], ["2"], ["3"]]


@pytest.mark.parametrize("fault", ["poison", "being_deleted"])
@pytest.mark.parametrize(("room", "until"), [("new", 0), ("other", 4.5), ("other", 3.5)])
async def test_beside_one_that_is_refused_what_waits_for_its_room_keeps_its_order(
    autojump_clock: MockClock, fault: str, room: str, until: float
) -> None:
    """Each is stored by itself then: in a room that is new, or locked until the last was tried, or the second."""
    async with running() as world:
        getattr(world.table, fault).add("refused")
        world.table.locked.add("other")
        world.submit("refused")
        world.submit("1", "2", "3", room=room)
        await trio.sleep(until * COMMIT)
        world.table.locked.clear()
        await trio.sleep(2)

    assert isinstance(world.what("refused"), Error)
    assert [world.what(id_).seq for id_ in "123"] == [1, 2, 3]


async def test_who_sends_too_much_is_refused_at_once_and_others_are_not(autojump_clock: MockClock) -> None:
    async with running() as world:
        greedy = object()
        world.submit(*[f"g{number}" for number in range(MAX_WAITING_OF_ONE + 1)], owner=greedy)
        world.submit("modest")
        refused = dict(world.answers)
        await trio.sleep(2)

    assert list(refused) == [f"g{MAX_WAITING_OF_ONE}"]
    assert isinstance(world.what("modest"), Ack)
    assert sum(isinstance(answer, Ack) for answer, _ in world.answers.values()) == MAX_WAITING_OF_ONE + 1


async def test_post_waits_for_its_own_answer(autojump_clock: MockClock) -> None:
    async with running() as world:
        answer = await world.writer.post(note("1"))

    assert isinstance(answer, Ack)
    assert (answer.id, answer.seq) == ("1", 1)
