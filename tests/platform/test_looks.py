"""A look that several tasks share: whom it answers, and who looks when it comes to nothing."""

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.looks import SharedLook


class Thing:
    """Something that is looked at; each look waits until it is let go, and finds what there was when it began."""

    def __init__(self) -> None:
        self.look = SharedLook(self._look)
        self.state = 0
        self.begun = 0
        self.found: int | None = None
        self.answer = trio.Event()
        self.error: Exception | None = None

    async def _look(self) -> None:
        self.begun += 1
        state, answer = self.state, self.answer
        await answer.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.found = state

    async def ask(self, answers: list[int | None]) -> None:
        await self.look.wait()
        answers.append(self.found)

    def let_go(self) -> None:
        before, self.answer = self.answer, trio.Event()
        before.set()


async def test_who_comes_during_a_look_shares_the_next_one(mock_clock: MockClock) -> None:
    thing, first, others = Thing(), list[int | None](), list[int | None]()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(thing.ask, first)
        await wait_all_tasks_blocked()
        thing.state = 1
        for _ in range(3):
            nursery.start_soon(thing.ask, others)
        await wait_all_tasks_blocked()
        thing.let_go()
        await wait_all_tasks_blocked()
        assert (first, others) == ([0], [])
        thing.let_go()

    assert (others, thing.begun) == ([1, 1, 1], 2)


async def test_a_look_that_is_cancelled_answers_nobody(mock_clock: MockClock) -> None:
    thing, answers, leader = Thing(), list[int | None](), trio.CancelScope()

    async def lead() -> None:
        with leader:
            await thing.look.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lead)
        await wait_all_tasks_blocked()
        for _ in range(2):
            nursery.start_soon(thing.ask, answers)
        await wait_all_tasks_blocked()
        leader.cancel()
        await wait_all_tasks_blocked()
        assert (answers, thing.begun) == ([], 2)
        thing.let_go()

    assert (answers, thing.begun) == ([0, 0], 2)


async def test_who_waits_is_let_down_by_no_failure_of_another_s_look(mock_clock: MockClock) -> None:
    thing, answers = Thing(), list[int | None]()
    thing.error = ValueError("not now")

    async def fail() -> None:
        with pytest.raises(ValueError, match="not now"):
            await thing.look.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(fail)
        await wait_all_tasks_blocked()
        nursery.start_soon(thing.ask, answers)
        await wait_all_tasks_blocked()
        thing.let_go()
        await wait_all_tasks_blocked()
        assert (answers, thing.begun) == ([], 2)
        thing.let_go()

    assert answers == [0]
