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


async def fail(turns: Turns, clock: MockClock, seconds: float) -> None:
    async with turns.take():
        clock.jump(seconds)
        1 / 0  # noqa: B018


async def test_between_two_turns_the_loop_is_free_for_as_long_as_the_first_held_it(autojump_clock: MockClock) -> None:
    turns, held = Turns(), list[tuple[float, float]]()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(hold, turns, autojump_clock, 0.5, held)

    assert held == [(0, 0.5), (1, 1.5), (2, 2.5)]


async def test_after_a_long_hold_as_of_a_process_that_was_stopped_it_is_free_for_a_second(
    autojump_clock: MockClock,
) -> None:
    turns, held = Turns(), list[tuple[float, float]]()
    for _ in range(2):
        await hold(turns, autojump_clock, 60, held)

    assert held == [(0, 60), (61, 121)]


async def test_a_turn_after_a_rest_is_taken_at_once(autojump_clock: MockClock) -> None:
    turns, held = Turns(), list[tuple[float, float]]()
    await hold(turns, autojump_clock, 0.5, held)
    await trio.sleep(3)
    await hold(turns, autojump_clock, 0.5, held)

    assert held == [(0, 0.5), (3.5, 4)]


async def test_one_that_fails_or_waits_no_longer_leaves_the_turn_to_the_next(autojump_clock: MockClock) -> None:
    turns, held = Turns(), list[tuple[float, float]]()
    with pytest.raises(ZeroDivisionError):
        await fail(turns, autojump_clock, 1)
    with trio.move_on_after(0.5) as given_up:
        await hold(turns, autojump_clock, 1, held)
    await hold(turns, autojump_clock, 1, held)

    assert given_up.cancelled_caught
    assert held == [(2, 3)]
