"""Time that stands still at a breakpoint, for the loop and for everything that has a deadline in it."""

import threading
import time

import pytest
import trio

from service.platform.reload.clock import StoppableClock


@pytest.fixture
def clock() -> StoppableClock:
    return StoppableClock()


def test_no_deadline_passes_while_it_is_stopped(clock: StoppableClock) -> None:
    async def main() -> bool:
        with trio.move_on_after(0.2) as scope:
            with clock.stopped():
                time.sleep(0.5)  # noqa: ASYNC251  a breakpoint holds the loop
            await trio.lowlevel.checkpoint()
        return scope.cancelled_caught

    assert not trio.run(main, clock=clock)


def test_deadlines_hold_afterwards(clock: StoppableClock) -> None:
    async def main() -> bool:
        with clock.stopped():
            pass
        with trio.move_on_after(0.01) as scope:
            await trio.sleep_forever()
        return scope.cancelled_caught

    assert trio.run(main, clock=clock)


def test_the_loop_waits_when_another_thread_stopped_it(clock: StoppableClock) -> None:
    stopped, go_on = threading.Event(), threading.Event()

    def at_a_breakpoint() -> None:
        with clock.stopped():
            stopped.set()
            go_on.wait()

    async def main() -> bool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, at_a_breakpoint)
            await trio.to_thread.run_sync(stopped.wait)
            with trio.move_on_after(0.01) as scope:
                await trio.to_thread.run_sync(time.sleep, 0.3)
            go_on.set()
        return scope.cancel_called

    assert not trio.run(main, clock=clock)


def test_time_does_not_jump(clock: StoppableClock) -> None:
    begun, before = time.perf_counter(), clock.current_time()
    with clock.stopped():
        first = clock.current_time()
        time.sleep(0.1)
        second = clock.current_time()
    after, ended = clock.current_time(), time.perf_counter()

    assert before <= first == second <= after
    assert after - before <= ended - begun - 0.1
