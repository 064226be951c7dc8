"""What a process holds, and how many more it may claim; time is virtual."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
import trio.testing
from trio.testing import MockClock

from service.platform.jobs.held import MOST_AHEAD, Held
from service.platform.jobs.running import LEASE, PATIENCE
from service.platform.jobs.store import Claimed

SLOTS = 2


@asynccontextmanager
async def open_soon() -> AsyncIterator[trio.Nursery]:
    """Yield a nursery whose tasks have to end at once, once its body has."""
    with trio.fail_after(1):
        async with trio.open_nursery() as nursery:
            yield nursery


def claimed(*ids: int) -> list[Claimed]:
    return [Claimed(one, "note", "{}", 1, 0, "", None, 0.0, "me") for one in ids]


async def test_slow_jobs_are_not_claimed_ahead_of_their_slots() -> None:
    held = Held(SLOTS)
    for _ in range(200):
        held.note_seconds(10.0)
    held.add(claimed(1), trio.current_time() + LEASE)

    assert held.room == SLOTS - 1


async def test_quick_ones_are_and_not_without_bound() -> None:
    held = Held(SLOTS)
    for _ in range(200):
        held.note_seconds(0.0)

    assert held.room == SLOTS * (1 + MOST_AHEAD)


async def test_what_has_only_to_be_written_takes_no_room_until_it_is_too_much() -> None:
    held = Held(SLOTS)
    room, many = held.room, claimed(*range(MOST_AHEAD * SLOTS + 1))
    held.add(many, trio.current_time() + LEASE)
    for _ in many[:-1]:
        held.note_returned()
    assert held.room == room - 1

    held.note_returned()
    assert held.room == 0

    held.drop(many, returned=len(many))
    assert (held.room, len(held)) == (room, 0)


async def test_an_older_claim_of_the_same_job_is_not_what_is_held() -> None:
    held = Held(SLOTS)
    (lost,), (newer,) = claimed(1), claimed(1)
    held.add([lost], trio.current_time() + LEASE)
    held.add([newer], trio.current_time() + LEASE)
    held.drop([lost])

    assert held.get(lost) is None
    assert held.get(newer) is not None


async def test_what_has_waited_too_long_or_is_no_longer_ours_is_taken_out(autojump_clock: MockClock) -> None:
    held = Held(SLOTS)
    held.add(claimed(1), trio.current_time() + LEASE)
    await trio.sleep(PATIENCE / 2)
    held.add(claimed(2), trio.current_time() + LEASE)
    held.add(claimed(3), trio.current_time() + PATIENCE / 4)
    await trio.sleep(PATIENCE * 0.6)

    assert [one.claimed.id for one in held.take_impatient()] == [1, 3]
    assert [one.claimed.id for one in held.waiting] == [2]


async def test_who_waits_for_room_goes_on_when_there_is_some_and_when_it_is_let_go(autojump_clock: MockClock) -> None:
    held, many = Held(SLOTS), claimed(*range(50))
    held.add(many, trio.current_time() + LEASE)

    async with open_soon() as nursery:
        nursery.start_soon(held.wait_worth_it)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        held.drop(many)

    held.add(many, trio.current_time() + LEASE)
    held.let_go()
    await held.wait_worth_it()


async def test_one_slot_that_is_free_is_worth_a_claim_where_jobs_are_slow(autojump_clock: MockClock) -> None:
    held, (first, *others) = Held(SLOTS), claimed(*range(SLOTS))
    for _ in range(200):
        held.note_seconds(10.0)
    held.add([first, *others], trio.current_time() + LEASE)

    async with open_soon() as nursery:
        nursery.start_soon(held.wait_worth_it)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        held.drop([first])
    with trio.fail_after(1):
        await held.wait_worth_it()


async def test_who_waits_for_all_to_end_goes_on_when_the_last_has(autojump_clock: MockClock) -> None:
    held, (first, last) = Held(SLOTS), claimed(1, 2)
    held.add([first, last], trio.current_time() + LEASE)

    async with open_soon() as nursery:
        nursery.start_soon(held.wait_empty)
        await trio.testing.wait_all_tasks_blocked()
        held.drop([first])
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        held.drop([last])
