"""Turns: what holds the event loop leaves it free for as long between two."""

import pytest
import trio
from trio.testing import MockClock

from service.platform.http.turns import Turns


async def hold(turns: Turns, clock: MockClock, seconds: float, held: list[tuple[float, float]]) -> None:
    async with turns.take():
        begun = trio.current_time()
        clock.jump(seconds)
        held.append((begun, trio.current_time()))


def a_quarter() -> Turns:
    """Turns of a loop that has a quarter of a processor, as where four share it."""
    return Turns(lambda: trio.current_time() / 4)


async def fail(turns: Turns, clock: MockClock, seconds: float) -> None:
    async with turns.take():
        clock.jump(seconds)
        1 / 0  # noqa: B018


async def test_between_two_turns_the_loop_is_free_for_as_long_as_the_first_held_it(autojump_clock: MockClock) -> None:
    turns, held = a_quarter(), list[tuple[float, float]]()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hold, turns, autojump_clock, 4, held)

    assert held == [(0, 4), (8, 12), (16, 20)]


async def test_a_hold_in_which_the_process_was_stopped_counts_for_eight_times_its_work(
    autojump_clock: MockClock,
) -> None:
    worked = iter([0, 0.5, 0.5, 1])
    turns, held = Turns(lambda: next(worked)), list[tuple[float, float]]()
    for _ in range(2):
        await hold(turns, autojump_clock, 60, held)

    assert held == [(0, 60), (64, 124)]


async def test_a_turn_after_a_rest_is_taken_at_once(autojump_clock: MockClock) -> None:
    turns, held = a_quarter(), list[tuple[float, float]]()
    await hold(turns, autojump_clock, 0.5, held)
    await trio.sleep(3)
    await hold(turns, autojump_clock, 0.5, held)

    assert held == [(0, 0.5), (3.5, 4)]


async def test_one_that_fails_or_waits_no_longer_leaves_the_turn_to_the_next(autojump_clock: MockClock) -> None:
    turns, held = a_quarter(), list[tuple[float, float]]()
    with pytest.raises(ZeroDivisionError):
        await fail(turns, autojump_clock, 1)
    with trio.move_on_after(0.5) as given_up:
        await hold(turns, autojump_clock, 1, held)
    await hold(turns, autojump_clock, 1, held)

    assert given_up.cancelled_caught
    assert held == [(2, 3)]
