"""Who gets a connection, who waits, and who is refused at once."""

import pytest
import trio
import trio.testing

from service.platform.database import Outcome, open_database
from service.platform.database.slots import PATIENCE, Slots
from service.platform.errors import Busy
from service.platform.testing.fixtures import MakeSettings
from tests.platform.database.units import sleep


async def hold(slots: Slots, seconds: float) -> None:
    await slots.acquire()
    await trio.sleep(seconds)
    slots.release(seconds)


async def test_a_promise_is_kept_late_rather_than_broken_late(autojump_clock: trio.testing.MockClock) -> None:
    """Whoever was let in is served, though the unit ahead takes twice the longest wait."""
    slots = Slots(1, 0.4)
    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, slots, 0.8)
        await trio.testing.wait_all_tasks_blocked()
        await slots.acquire()

    assert trio.current_time() - started == pytest.approx(0.8)


async def test_nobody_waits_for_ever_when_nothing_ends(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(1, 0.4)
    await slots.acquire()
    started = trio.current_time()

    with pytest.raises(Busy) as refused:
        await slots.acquire()

    assert trio.current_time() - started == pytest.approx(PATIENCE * 0.4)
    assert refused.value.headers == {"Retry-After": "1"}
    assert slots.waiting == 0


async def test_newcomers_are_refused_at_once_while_nothing_ends(autojump_clock: trio.testing.MockClock) -> None:
    """The units so far were quick; the one that is running stands still."""
    slots = Slots(1, 0.4)
    for _ in range(50):
        await hold(slots, 0.01)
    await slots.acquire()
    await trio.sleep(0.5)
    started = trio.current_time()

    with pytest.raises(Busy):
        await slots.acquire()

    assert trio.current_time() == started


async def test_before_the_first_unit_has_ended_not_everybody_is_let_in(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(10, 0.4)
    refused = 0

    async def ask() -> None:
        nonlocal refused
        try:
            await hold(slots, 0.04)
        except Busy:
            refused += 1
            assert trio.current_time() == started

    started = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(ask)

    assert 0 < 500 - refused <= 10 + 10 * 10 + 1  # those with a slot, and as many as end within the wait, as guessed


async def test_a_slot_is_refused_at_once_when_the_expected_wait_is_longer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slots = Slots(2, 0.4)
    for _ in range(50):
        await hold(slots, 0.2)  # the recent mean
    async with trio.open_nursery() as nursery:
        for _ in range(2 + 5):  # two have slots; five wait: 5 * 0.2 / 2 is 0.5 seconds
            nursery.start_soon(hold, slots, 0.2)
        await trio.testing.wait_all_tasks_blocked()
        started = trio.current_time()

        with pytest.raises(Busy):
            await slots.acquire()

        assert trio.current_time() == started
        assert slots.expected_wait == pytest.approx(0.5, rel=0.05)
        nursery.cancel_scope.cancel()


async def test_slots_go_out_in_order_of_arrival(autojump_clock: trio.testing.MockClock) -> None:
    slots = Slots(1, 60)
    order: list[int] = []

    async def take(number: int) -> None:
        await slots.acquire()
        order.append(number)
        slots.release(0)

    await slots.acquire()
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(take, number)
            await trio.testing.wait_all_tasks_blocked()
        slots.release(0)

    assert order == [0, 1, 2, 3, 4]
    assert slots.used == 0


async def test_a_slot_that_comes_together_with_a_cancel_goes_to_the_next(
    autojump_clock: trio.testing.MockClock,
) -> None:
    slots = Slots(1, 60)
    await slots.acquire()
    scope = trio.CancelScope()

    async def wait_and_be_cancelled() -> None:
        with scope:
            await slots.acquire()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_and_be_cancelled)
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        slots.release(0)

    assert (slots.used, slots.waiting) == (0, 0)


@pytest.mark.parametrize("noise", [5, pytest.param(0.1, marks=pytest.mark.drill)])
async def test_500_at_once_are_served_or_refused_within_the_wait_and_others_are_not_disturbed(
    make_settings: MakeSettings,
    noise: float,  # seconds that the machine may add because it does something else
) -> None:
    settings = make_settings(database_connections=10, database_queue_wait=0.4)
    took: dict[str, list[float]] = {"served": [], "refused": []}
    late: list[float] = []
    with trio.fail_after(30):
        async with open_database(settings) as database, trio.open_nursery() as nursery:

            async def ask() -> None:
                started = trio.current_time()
                try:
                    await database.run(sleep, 0.05)
                    took["served"].append(trio.current_time() - started)
                except Busy:
                    took["refused"].append(trio.current_time() - started)

            async def watch_lateness() -> None:
                while True:
                    due = trio.current_time() + 0.005
                    await trio.sleep_until(due)
                    late.append(trio.current_time() - due)

            for _ in range(10):  # so that there is a recent mean
                await database.run(sleep, 0.05)
            nursery.start_soon(watch_lateness)
            async with trio.open_nursery() as crowd:
                for _ in range(500):
                    crowd.start_soon(ask)
            nursery.cancel_scope.cancel()
    p99 = sorted(late)[int(len(late) * 0.99)]

    print(f"{len(took['served'])} served, {len(took['refused'])} refused; others late by {p99 * 1000:.1f} ms at p99")
    assert len(took["served"]) + len(took["refused"]) == 500
    assert len(took["served"]) >= 30
    assert max(took["served"]) < 0.4 + 0.05 + noise  # the wait, and the query
    assert max(took["refused"]) < 0.4 + noise
    assert sorted(took["refused"])[len(took["refused"]) // 2] < 0.4, "most without the wait"
    assert p99 < noise
    assert database.statistics().units[Outcome.BUSY] == len(took["refused"])
